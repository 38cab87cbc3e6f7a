"""Make the shop and use it, in the database that libpq's variables name."""

import os

import django
from django.conf import settings

settings.configure(
    # The rest libpq finds for itself.
    DATABASES={"default": {"ENGINE": "django.db.backends.postgresql", "NAME": os.environ["PGDATABASE"]}},
    INSTALLED_APPS=["django.contrib.postgres", "tests.queryplans.shops.by_django"],
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    USE_TZ=True,
)
django.setup()

from tests.queryplans.shops.by_django import use  # noqa: E402 - models exist once Django is set up

use.create()
use.exercise()
