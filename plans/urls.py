"""The addresses of the invite link's pages; the project mounts them under invites/."""

from django.urls import path

from plans.views import InviteView, accepted

urlpatterns = [
    path("accepted/", accepted, name="invite_accepted"),
    path("<str:token>/", InviteView.as_view(), name="invite"),
]
