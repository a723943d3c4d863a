"""Nautobot settings for the tests: those of the local stack, with Celery run in the same process."""

from development.nautobot_config import *  # noqa: F403

CELERY_TASK_ALWAYS_EAGER = True
CELERY_TASK_STORE_EAGER_RESULT = True
CELERY_BROKER_URL = "memory://"
# In memory, so that a setting changed by one test is not seen by the next.
CONSTANCE_BACKEND = "constance.backends.memory.MemoryBackend"
# In cookies, since each login and each request would write and read them in the database; no test looks at them there.
SESSION_ENGINE = "django.contrib.sessions.backends.signed_cookies"
# Random objects of every core model take half a minute to make, and no test here reads them.
TEST_USE_FACTORIES = False
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
# A test's rows are in a transaction that no other connection sees into: the thread that renews a lease would find it
# gone. Tests of renewing commit what they write, and set a length of their own.
PLUGINS_CONFIG["ai_ops"]["lease_seconds"] = 300  # noqa: F405
# Seconds of the processor that Nautobot lets a pattern take; its own tests of renaming let one take all of them.
REGEX_TIMEOUT = 0.2
