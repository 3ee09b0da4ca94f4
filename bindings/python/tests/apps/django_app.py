"""Django 5.2 with Channels: the admin, static files, a WebSocket consumer, a session through `ProtocolTypeRouter`."""

import os
import sys
import tempfile
import threading

import django
from django.conf import settings

if not settings.configured:
    settings.configure(
        DEBUG=True,
        SECRET_KEY="for tests",
        ALLOWED_HOSTS=["*"],
        ROOT_URLCONF=__name__,
        DATABASES={
            "default": {"ENGINE": "django.db.backends.sqlite3", "NAME": os.path.join(tempfile.mkdtemp(), "db.sqlite3")}
        },
        INSTALLED_APPS=[
            "django.contrib.admin",
            "django.contrib.auth",
            "django.contrib.contenttypes",
            "django.contrib.sessions",
            "django.contrib.messages",
            "django.contrib.staticfiles",
        ],
        MIDDLEWARE=[
            "django.contrib.sessions.middleware.SessionMiddleware",
            "django.middleware.common.CommonMiddleware",
            "django.middleware.csrf.CsrfViewMiddleware",
            "django.contrib.auth.middleware.AuthenticationMiddleware",
            "django.contrib.messages.middleware.MessageMiddleware",
        ],
        TEMPLATES=[
            {
                "BACKEND": "django.template.backends.django.DjangoTemplates",
                "APP_DIRS": True,
                "OPTIONS": {
                    "context_processors": [
                        "django.template.context_processors.request",
                        "django.contrib.auth.context_processors.auth",
                        "django.contrib.messages.context_processors.messages",
                    ]
                },
            }
        ],
        STATIC_URL="/static/",
    )
    django.setup()

from channels.consumer import AsyncConsumer
from channels.generic.websocket import AsyncWebsocketConsumer
from channels.routing import ProtocolTypeRouter, URLRouter
from django.contrib import admin
from django.contrib.staticfiles.handlers import ASGIStaticFilesHandler
from django.core.asgi import get_asgi_application
from django.core.management import call_command
from django.http import HttpResponse, JsonResponse, StreamingHttpResponse
from django.urls import path

# Django refuses to touch its database where an event loop runs, and applications are imported where it does.
_migrating = threading.Thread(target=call_command, args=("migrate",), kwargs={"verbosity": 0, "stdout": sys.stderr})
_migrating.start()
_migrating.join()


def view(request):
    return JsonResponse({"method": request.method, "body": request.body.decode(), "query": request.GET.dict()})


async def stream(request):
    async def pieces():
        for number in range(3):
            yield f"{number};"

    return StreamingHttpResponse(pieces())


async def plain(request):
    return HttpResponse("async")


view.csrf_exempt = True
urlpatterns = [
    path("view", view),
    path("stream", stream),
    path("plain", plain),
    path("admin/", admin.site.urls),
]


class Echo(AsyncWebsocketConsumer):
    async def receive(self, text_data=None, bytes_data=None):
        await self.send(text_data=text_data[::-1])


class Session(AsyncConsumer):
    async def webtransport_connect(self, message):
        await self.send({"type": "webtransport.accept"})

    async def webtransport_stream_receive(self, message):
        await self.send(
            {
                "type": "webtransport.stream.send",
                "stream": message["stream"],
                "data": message["data"][::-1],
                "end_stream": not message["more_data"],
            }
        )

    async def webtransport_disconnect(self, message):
        from channels.exceptions import StopConsumer

        raise StopConsumer


app = ProtocolTypeRouter(
    {
        "http": ASGIStaticFilesHandler(get_asgi_application()),
        "websocket": URLRouter([path("ws", Echo.as_asgi())]),
        "webtransport": Session.as_asgi(),
    }
)
