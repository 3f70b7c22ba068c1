"""URLs of the pages of an invite link; the project mounts them under invites/."""

from django.urls import path

from plans.views import InviteView, accepted

urlpatterns = [
    path("accepted/", accepted, name="invite_accepted"),
    path("<str:token>/", InviteView.as_view(), name="invite"),
]
