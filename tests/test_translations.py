"""Everybody reads their own language, and German is complete, in the catalogues and compiled files."""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import allauth
import polib
import pytest
from django.conf import settings as project
from django.contrib import admin
from django.contrib.admin.models import LogEntry
from django.contrib.admin.utils import label_for_field
from django.contrib.auth.models import User
from django.core import mail
from django.core.mail import EmailMultiAlternatives
from django.core.management import CommandError, call_command
from django.test import Client
from django.utils import translation
from pytest_django import Settings
from time_machine import TimeMachineFixture

from plans.models import FamilyPlan, FamilyPlanInvite, Membership
from tests.admin_pages import as_person, row_of, text_of, told, url
from tests.api import client_of, node_id, post
from tests.factories import InviteFactory
from zammad.models import WebhookDelivery
from zammad.sandbox import Sandbox

BASE_DIR = Path(__file__).resolve().parent.parent
ROOMS = ("config", "graphql_api", "plans", "zammad")
CATALOGUES = sorted(BASE_DIR.glob("[a-z]*/locale/*/LC_MESSAGES/django.po"))
OF_ALLAUTH = BASE_DIR / "config/allauth_locale/de/LC_MESSAGES/django.po"  # our words instead
ALL_CATALOGUES = [*CATALOGUES, OF_ALLAUTH]
TEMPLATES = sorted(path for room in ROOMS for path in (BASE_DIR / room).rglob("templates/**/*.*"))
NOON = datetime(2026, 8, 3, 12, tzinfo=UTC)
GERMAN = {"accept-language": "de"}

CREATE_PLAN = """mutation($name: String!) { createPlan(input: {name: $name}) {
    ... on OperationInfo { messages { code field message } } } }"""
ACCEPT = """mutation($token: String!) { acceptInvite(input: {token: $token}) {
    __typename ... on OperationInfo { messages { code field message } } } }"""
INVITE = """mutation($plan: ID!, $email: String) { createInvite(input: {planId: $plan, email: $email}) {
    ... on CreatedInvite { url } } }"""


def refusal(viewer: User | None, query: str, *, language: str | None, **variables: object) -> dict[str, str]:
    """Run a mutation that is refused, in a language, and return the reason."""
    headers = {} if language is None else {"accept-language": language}
    response = post(client_of(viewer), query, variables, **headers)
    [(_, answer)] = response.json()["data"].items()
    [message] = answer["messages"]
    return dict(message)


# --- The language of a response -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("language", "message"),
    [
        ("de", "Diese Einladung gibt es nicht."),
        ("de-AT,de;q=0.9,en;q=0.5", "Diese Einladung gibt es nicht."),
        ("fr, de;q=0.5, en;q=0.4", "Diese Einladung gibt es nicht."),
        ("en-GB,en;q=0.9,de;q=0.8", "There is no such invite."),
        ("fr", "There is no such invite."),
        ("*", "There is no such invite."),
        ("\N{POUND SIGN};;q=x", "There is no such invite."),
        (None, "There is no such invite."),
    ],
)
def test_a_refusal_is_told_in_the_language_that_is_asked_for_and_its_code_stays(
    carol: User, language: str | None, message: str
) -> None:
    told = refusal(carol, ACCEPT, language=language, token="unknown")

    assert told == {"code": "INVITE_NOT_FOUND", "field": None, "message": message}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "See https://example.com",
            (
                "Der Name eines Plans darf keinen Link enthalten. "
                "Setzen Sie hinter jeden Punkt, Doppelpunkt und jedes @ ein Leerzeichen."
            ),
        ),  # our own rule
        ("", "Dieses Feld darf nicht leer sein."),  # Django's
    ],
)
def test_what_is_wrong_with_a_field_is_told_in_german(superuser: User, name: str, message: str) -> None:
    told = refusal(superuser, CREATE_PLAN, language="de", name=name)

    assert told == {"code": "INVALID_INPUT", "field": "name", "message": message}


def test_a_missing_right_is_told_in_german(carol: User) -> None:
    forbidden = refusal(carol, CREATE_PLAN, language="de", name="Ours")
    signed_out = refusal(None, CREATE_PLAN, language="de", name="Ours")

    assert forbidden == {"code": "PERMISSION_DENIED", "field": None, "message": "Das dürfen Sie nicht."}
    assert signed_out == {
        "code": "NOT_AUTHENTICATED",
        "field": None,
        "message": "Melden Sie sich zuerst an.",
    }


def test_a_page_that_is_too_long_is_refused_in_german(carol: User) -> None:
    query = "{ plans(first: 101) { edges { cursor } } }"

    response = post(client_of(carol), query, **GERMAN)

    [error] = response.json()["errors"]
    assert error["message"] == "first muss eine Zahl von 0 bis 100 sein."
    assert error["extensions"]["code"] == "INVALID_INPUT"


def test_a_mistake_in_an_operation_is_told_in_english(carol: User) -> None:
    [error] = post(client_of(carol), "{ nonsense }", **GERMAN).json()["errors"]

    assert error["message"] == "Cannot query field 'nonsense' on type 'Query'."


def test_caches_are_told_that_an_answer_depends_on_the_language(client: Client, db: None) -> None:
    german = client.get("/", headers=GERMAN)
    english = client.get("/")

    assert (german["Content-Language"], english["Content-Language"]) == ("de", "en")
    assert "Accept-Language" in german["Vary"]
    assert "Accept-Language" in english["Vary"]


def test_whoever_asks_for_no_language_of_ours_reads_the_language_of_the_deployment(
    carol: User, settings: Settings
) -> None:
    settings.LANGUAGE_CODE = "de"

    heard = {
        language: refusal(carol, ACCEPT, language=language, token="unknown")["message"]
        for language in (None, "fr", "de", "en")
    }

    assert heard == dict.fromkeys((None, "fr", "de"), "Diese Einladung gibt es nicht.") | {
        "en": "There is no such invite."
    }


def test_a_request_leaves_its_language_to_nobody(client: Client, settings: Settings, db: None) -> None:
    settings.ALLOWED_HOSTS = ["testserver"]
    settings.SECURE_SSL_REDIRECT = True
    client.get("/", headers=GERMAN, secure=True)
    assert translation.get_language() == "en"

    # refused for its host, before its language is known
    with translation.override("de"):
        response = client.get("/", headers={"host": "evil.example.com"})

    assert response.status_code == 400
    assert "We could not read the request that your browser sent." in response.content.decode()


# --- Pages and mails ------------------------------------------------------------------------------


def test_the_page_behind_an_invite_link_is_in_german(
    plan: FamilyPlan, carol: User, time_machine: TimeMachineFixture
) -> None:
    time_machine.move_to(NOON, tick=False)
    InviteFactory(family_plan=plan, token="t" * 43)

    page = as_person(carol).get(f"/invites/{'t' * 43}/", headers=GERMAN).content.decode()

    assert '<html lang="de">' in page
    for words in (
        "<h1>„The Archers“ beitreten</h1>",
        "Alice Archer lädt Sie ein, diesen Familienplan mitzunutzen.",
        "Angemeldet als Carol Carver (carol@example.com)",
        "Einladung annehmen</button>",
        "Ein anderes Konto verwenden</button>",
        "Die Einladung gilt bis 5. August 2026, 12:00 UTC.",
    ):
        assert words in page


def test_the_page_says_in_german_why_an_invite_cannot_be_accepted(plan: FamilyPlan, bob: User) -> None:
    InviteFactory(family_plan=plan, token="t" * 43)

    page = as_person(bob).post(f"/invites/{'t' * 43}/", headers=GERMAN)

    assert page.status_code == 409
    assert "Diese Person ist bereits in einem Plan." in page.content.decode()
    assert "Sie können nur in einem Plan sein" in page.content.decode()


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("/", ["<h1>Familienpläne</h1>", "Teilen Sie einen Plan", "Registrieren</a>"]),
        (
            "/accounts/login/",
            ["Anmelden\n", " - Familienpläne</title>", "Passwort", "registrieren</a> Sie sich"],
        ),
        ("/nowhere/", ["Unter dieser Adresse gibt es keine Seite.", "Startseite</a>"]),
    ],
)
def test_the_pages_of_the_frame_are_in_german(
    client: Client, db: None, address: str, words: list[str]
) -> None:
    page = client.get(address, headers=GERMAN).content.decode()

    assert [word for word in words if word not in page] == []


def test_an_invitation_is_mailed_in_the_language_of_the_request_that_causes_it(
    plan: FamilyPlan, alice: User, sandbox: Sandbox, time_machine: TimeMachineFixture
) -> None:
    time_machine.move_to(NOON, tick=False)
    asked = {"plan": node_id(plan), "email": "dave@example.com"}

    for headers in (GERMAN, {}):
        post(client_of(alice), INVITE, asked, **headers)
        asked["email"] = "erin@example.com"

    german, english = mail.outbox
    assert (german.subject, english.subject) == (
        "Sie sind zu einem Familienplan eingeladen",
        "You are invited to a family plan",
    )
    assert isinstance(german, EmailMultiAlternatives)
    [(markup, _)] = german.alternatives
    assert '<html lang="de">' in str(markup)
    for text in (str(markup), str(german.body)):
        assert "Alice Archer lädt Sie ein, einen Familienplan mitzunutzen." in text
        assert "Die Einladung gilt bis 5. August 2026, 12:00 UTC und nur für diese Adresse." in text
    assert "until 5 August 2026, 12:00 UTC" in english.body


def test_a_code_is_mailed_in_german(client: Client, db: None) -> None:
    password = "correct horse battery staple"
    form = {"email": "dave@example.com", "password1": password, "password2": password}

    client.post("/accounts/signup/", form, headers=GERMAN)

    [message] = mail.outbox
    assert "Familienpläne" in message.body


# --- Admin ----------------------------------------------------------------------------------------


def test_a_plan_in_admin_reads_german(support: User, plan: FamilyPlan) -> None:
    InviteFactory(family_plan=plan, email="dora@example.com")

    page = as_person(support).get(url(FamilyPlan, "change", plan.pk), headers=GERMAN)

    text = text_of(page)
    for words in (
        "Familienplan ändern",
        "Inhaber:in: Alice Archer (alice@example.com)",
        "Belegte Plätze: 3 von 5",
        "Plan schließen",
        "Einladen",
        "Einladungen, die neuesten 100",
        "Verlauf, die neuesten 100",
        "Personen in diesem Plan, einschließlich der Inhaberin oder des Inhabers.",
    ):
        assert words in text
    assert "Bob Baker (bob@example.com) Mitglied" in text
    assert "| Offen |" in row_of(page, "dora@example.com")
    assert "| Keine |" in row_of(page, "dora@example.com")


def test_the_index_and_the_settings_of_admin_read_german(superuser: User) -> None:
    client = as_person(superuser)

    index = text_of(client.get("/admin/", headers=GERMAN))
    page = client.get("/admin/plans/config/", headers=GERMAN)
    history = client.get("/admin/plans/config/history/", headers=GERMAN)

    for words in (
        "Zustellungen heute:",
        "Übernommen 0",
        "Familienpläne",
        "Planeinstellungen",
        "Webhook-Zustellungen",
    ):
        assert words in index
    for words in (
        "Plätze",
        "Stunden, bis eine neue Einladung abläuft (1 bis 720).",
        "Standard: 5.",
        "Standard: an.",
    ):
        assert words in text_of(page)
    assert "<title>Planeinstellungen | Familienpläne" in page.content.decode()
    assert "Bisher wurde nichts geändert." in text_of(history)


def test_what_staff_did_is_told_to_each_reader_in_their_own_language(
    support: User, plan: FamilyPlan, bob: User
) -> None:
    invite = InviteFactory(family_plan=plan)
    staff = as_person(support)

    # given a person who works in German
    detached = staff.post(url(Membership, "detach", bob.membership.pk), headers=GERMAN, follow=True)
    staff.post(url(FamilyPlanInvite, "revoke", invite.pk), headers=GERMAN)
    staff.post(url(FamilyPlan, "change", plan.pk), {"name": "Ours", "user_limit": "7"}, headers=GERMAN)
    assert told(detached) == [f"Benutzer {bob.pk} wurde entfernt."]

    # then nothing is stored in German
    kept = [row["change_message"] + row["object_repr"] for row in LogEntry.objects.values()]
    assert len(kept) == 3
    assert not [text for text in kept if re.search("Benutzer|Einladung|Obergrenze", text)]

    # and each reader sees their own words
    pages = [url(FamilyPlan, "history", plan.pk), url(FamilyPlanInvite, "history", invite.pk)]
    german = " ".join(text_of(staff.get(page, headers=GERMAN)) for page in pages)
    english = " ".join(text_of(staff.get(page)) for page in pages)
    for text in (
        f"Benutzer {bob.pk} wurde entfernt.",
        f"Einladung {invite.pk} wurde widerrufen.",
        "Name und Obergrenze geändert.",
    ):
        assert text in german
    for text in (f"Detached user {bob.pk}.", f"Revoked invite {invite.pk}.", "Changed Name and User limit."):
        assert text in english


def test_a_rule_of_a_journey_is_told_in_german(support: User, plan: FamilyPlan, alice: User) -> None:
    page = as_person(support).post(url(Membership, "detach", alice.membership.pk), headers=GERMAN)

    [message] = told(page)
    assert message.startswith("Wer die Inhaberschaft hat, kann nicht entfernt werden. Übertragen Sie ")


def test_everything_that_admin_shows_of_a_model_has_german_words() -> None:
    same = {"ID", "Name", "Person", "Plan", "Status", "Trigger", "VIP"}
    ours = [one for one in admin.site._registry.values() if one.opts.app_label in {"plans", "zammad"}]
    inlines = [inline(FamilyPlan, admin.site) for inline in admin.site.get_model_admin(FamilyPlan).inlines]

    def words() -> set[str]:
        found: set[str] = set()
        for page in [*ours, *inlines]:
            model: Any = page.model
            opts = model._meta
            found |= {str(opts.verbose_name), str(opts.verbose_name_plural)}
            if model.__name__ == "FamilyPlanSettings":
                continue  # it has no fields
            names = {*getattr(page, "list_display", ()), *page.readonly_fields}
            names |= set(page.fields or [field.name for field in opts.concrete_fields])
            found |= {str(label_for_field(name, model, page)) for name in names}
            found |= {str(label) for field in opts.concrete_fields for _, label in field.choices or ()}
            found |= {str(field.help_text) for field in opts.concrete_fields if field.help_text}
        return {word[:1].upper() + word[1:] for word in found}

    with translation.override("de"):
        german = words()

    assert len(german) > 80
    assert words() & german <= same


# --- What stays English ---------------------------------------------------------------------------


def deliver(client: Client, body: bytes) -> Any:
    mac = hmac.new(b"secret-of-the-tests", body, hashlib.sha1).hexdigest()
    headers = {"X-Hub-Signature": f"sha1={mac}", **GERMAN}
    return client.post("/webhooks/zammad/", body, content_type="application/json", headers=headers)


def test_zammads_log_is_told_in_english_and_admin_reads_the_same_in_german(
    client: Client, superuser: User, settings: Settings
) -> None:
    settings.LANGUAGE_CODE = "de"

    unsigned = client.post("/webhooks/zammad/", b"{}", content_type="application/json", headers=GERMAN)
    ignored = deliver(client, b"no JSON")

    assert (unsigned.status_code, unsigned.content) == (403, b"signature missing\n")
    assert (ignored.status_code, ignored.content) == (200, b"IGNORED: the body is not readable JSON\n")
    assert unsigned["Content-Language"] == ignored["Content-Language"] == "en"
    assert WebhookDelivery.objects.get().detail == "the body is not readable JSON"
    page = as_person(superuser).get(url(WebhookDelivery, "changelist"), headers=GERMAN)
    assert "der Inhalt ist kein lesbares JSON" in row_of(page, "Ignoriert")


@pytest.mark.parametrize("probe", ["/healthz", "/readyz"])
def test_probes_speak_no_language(client: Client, db: None, probe: str) -> None:
    response = client.get(probe, headers=GERMAN)

    assert response.content in {b"ok\n", b"ready\n"}
    assert not response.has_header("Content-Language")
    assert not response.has_header("Vary")


def test_a_command_speaks_english(db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PASSWORD_OF_THE_TEST", "12345")

    with translation.override("de"), pytest.raises(CommandError, match="This password is too short"):
        call_command("create_admin", email="dave@example.com", password_from_env="PASSWORD_OF_THE_TEST")


# --- The catalogues -------------------------------------------------------------------------------


def messages_of(catalogue: Path) -> list[polib.POEntry]:
    return list(polib.pofile(str(catalogue)))


def key_of(entry: polib.POEntry) -> tuple[str, str, str]:
    return entry.msgctxt or "", entry.msgid, entry.msgid_plural or ""


def translations_of(entry: polib.POEntry) -> list[str]:
    return list(entry.msgstr_plural.values()) if entry.msgid_plural else [entry.msgstr]


def placeholders(text: str) -> set[str]:
    return set(re.findall(r"%\(\w+\)[a-z]|\{\w*\}|%[a-z](?![a-z])", text))


def test_each_room_has_a_catalogue_in_each_language() -> None:
    languages = [code for code, _ in project.LANGUAGES if code != "en"]

    assert [str(path.relative_to(BASE_DIR)) for path in CATALOGUES] == [
        f"{room}/locale/{language}/LC_MESSAGES/django.po" for room in ROOMS for language in languages
    ]


@pytest.mark.parametrize("catalogue", ALL_CATALOGUES, ids=lambda path: "/".join(path.parts[-5:-2]))
def test_every_message_is_translated_with_what_it_has_to_fill_in(catalogue: Path) -> None:
    entries = messages_of(catalogue)
    forms = int(re.findall(r"nplurals=(\d)", polib.pofile(str(catalogue)).metadata["Plural-Forms"])[0])

    assert entries
    for entry in entries:
        told = translations_of(entry)
        assert not entry.fuzzy, entry.msgid
        assert not entry.obsolete, entry.msgid
        assert all(text.strip() for text in told), entry.msgid
        assert len(told) == (forms if entry.msgid_plural else 1), entry.msgid
        for text in told:
            assert placeholders(text) == placeholders(entry.msgid_plural or entry.msgid), entry.msgid
            assert re.findall(r"</?\w+", text) == re.findall(r"</?\w+", entry.msgid)
            assert text.endswith("\n") == entry.msgid.endswith("\n")


def test_rooms_that_say_the_same_say_it_in_the_same_words() -> None:
    said: dict[Any, set[tuple[str, ...]]] = {}
    for catalogue in CATALOGUES:
        for entry in messages_of(catalogue):
            said.setdefault((catalogue.parts[-3], *key_of(entry)), set()).add(tuple(translations_of(entry)))

    assert [key for key, words in said.items() if len(words) > 1] == []


@pytest.mark.parametrize("catalogue", ALL_CATALOGUES, ids=lambda path: "/".join(path.parts[-5:-2]))
def test_what_is_compiled_is_what_was_translated(catalogue: Path) -> None:
    compiled = polib.mofile(str(catalogue.with_suffix(".mo")))

    assert {key_of(entry): translations_of(entry) for entry in compiled} == {
        key_of(entry): translations_of(entry) for entry in messages_of(catalogue)
    }
    assert compiled.metadata["Plural-Forms"] == polib.pofile(str(catalogue)).metadata["Plural-Forms"]


FAMILIAR = re.compile(
    r"\b(du|dich|dir|dein\w*|bist|hast|kannst|musst|möchtest|gib|lass|klicke?|folge|rufe|versuche es|wähle|"
    r"kontaktiere|bestätige|überprüfe|melde|erstelle|verwende|ändere|füge|scanne|speichere|warte|öffne)\b",
    re.IGNORECASE,
)
# Parts of allauth that we do not use.
NOT_SHOWN = re.compile("(templates/)?(idp|openid|socialaccount|usersessions)/")


@pytest.mark.parametrize("catalogue", ALL_CATALOGUES, ids=lambda path: "/".join(path.parts[-5:-2]))
def test_our_german_says_sie(catalogue: Path) -> None:
    texts = [text for entry in messages_of(catalogue) for text in translations_of(entry)]

    assert [text for text in texts if FAMILIAR.search(text)] == []


def test_what_we_show_of_allauth_says_sie() -> None:
    catalogue = Path(allauth.__file__).parent / "locale/de/LC_MESSAGES/django.po"
    theirs = messages_of(catalogue)
    shown = [entry for entry in theirs if any(not NOT_SHOWN.match(at) for at, _ in entry.occurrences)]

    with translation.override("de"):
        told = [
            text
            for entry in shown
            for text in (
                translation.gettext(entry.msgid),
                translation.ngettext(entry.msgid, entry.msgid_plural or entry.msgid, 2),
            )
        ]

    assert len(shown) > 200
    assert [text for text in told if FAMILIAR.search(text)] == []
    # and no translation of ours is for a message that allauth does not have
    assert {entry.msgid for entry in messages_of(OF_ALLAUTH)} <= {entry.msgid for entry in theirs}


@pytest.mark.gettext
def test_the_catalogues_hold_every_message_of_the_code_and_no_other(tmp_path: Path) -> None:
    # given a copy of the code
    shutil.copy(BASE_DIR / "manage.py", tmp_path)
    for room in ROOMS:
        shutil.copytree(BASE_DIR / room, tmp_path / room, ignore=shutil.ignore_patterns("__pycache__"))

    # when its messages are collected as `make messages` does
    [line] = re.findall(r"manage\.py (makemessages .*)", (BASE_DIR / "Makefile").read_text())
    subprocess.run(
        [sys.executable, "manage.py", *line.split()],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "ENV_FILE": "", "DEBUG": "true"},  # as the Makefile says
        check=True,
        capture_output=True,
        timeout=120,
    )

    # then they are the translated ones
    for catalogue in CATALOGUES:
        gathered = messages_of(tmp_path / catalogue.relative_to(BASE_DIR))
        assert {key_of(entry) for entry in gathered} == {key_of(entry) for entry in messages_of(catalogue)}


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: path.name)
def test_no_words_of_a_template_escape_translation(template: Path) -> None:
    text = template.read_text()
    for pattern in (
        r"{% comment %}.*?{% endcomment %}",
        r"{% block (?:coltype|bodyclass) %}.*?{% endblock %}",
        r"{% blocktranslate.*?{% endblocktranslate %}",
        r"{%.*?%}",
        r"{{.*?}}",
        r"<style>.*?</style>",
        r"<!?[a-zA-Z/][^>]*>",
        r"&\w+;",
    ):
        text = re.sub(pattern, " ", text, flags=re.DOTALL)

    assert set(re.findall(r"[A-Za-z]\w+", text)) <= {"GraphiQL"}
