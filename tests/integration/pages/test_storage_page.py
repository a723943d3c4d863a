"""The page "Checkpoint storage": what it says in each state, to whom, and that it asks Redis nothing."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
from django.contrib.contenttypes.models import ContentType
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from nautobot.apps.testing import extract_page_body
from nautobot.extras.choices import JobResultStatusChoices
from nautobot.extras.models import Job, JobResult
from nautobot.users.models import ObjectPermission, User

from ai_ops.celery_tasks import pin_thread, sample_checkpoint_storage
from ai_ops.models import CheckpointStorageSnapshot, PinnedThread
from ai_ops.schedules import DEFAULT_SCHEDULES, find_job
from tests.fakes import jobs
from tests.fakes.conversations import old_id

PAGE = "plugins:ai_ops:checkpointstorage"
pytestmark = pytest.mark.django_db


def permit(user, model, *actions):
    permission = ObjectPermission.objects.create(name=f"{model._meta.model_name} {actions}", actions=list(actions))
    permission.users.add(user)
    permission.object_types.add(ContentType.objects.get_for_model(model))


@pytest.fixture
def reader():
    user = User.objects.create(username="reader")
    permit(user, CheckpointStorageSnapshot, "view")
    return user


@pytest.fixture
def operator(reader):
    permit(reader, Job, "run", "view")
    permit(reader, JobResult, "view")
    permit(reader, PinnedThread, "view")
    Job.objects.filter(pk=find_job("storage").pk).update(enabled=True)
    jobs.see_workers(default=1)
    return reader


def page_of(user):
    client = Client()
    client.force_login(user)
    response = client.get(reverse(PAGE))
    assert response.status_code == 200
    return " ".join(extract_page_body(response.content.decode()).split())


def test_never_sampled(operator):
    page = page_of(operator)
    assert "Nothing has been sampled yet: press Refresh, or wait for the hourly schedule." in page
    assert "Refresh" in page
    assert "echart" not in page


def test_it_shows_what_was_found(operator, checkpoint_redis):
    for days in (0.1, 3, 40, 50):
        checkpoint_redis.set(f"checkpoint:user:{days}:{old_id(days)}", "x" * 1000)
    pin_thread("user:50")
    pin_thread("gone:already", note="it was <b>important</b>")
    sample_checkpoint_storage()

    page = page_of(operator)

    for text in (
        "KEYS BY AGE",
        "THREADS BY AGE",
        "127.0.0.1",
        "Keys in the database",
        "4 (checkpoints)",
        "(plain keys)",
    ):
        assert text in page
    assert "Age in weeks" in page
    assert "50 days ago" in page
    assert "1.1" in page
    assert "1 of 4" in page
    assert "30 days for idle threads" in page
    assert "user:50</span></a>" in page
    assert "it was &lt;b&gt;important" in page
    assert page.count("<td>Yes</td>") == page.count("<td>No</td>") == 1
    assert f'href="/extras/jobs/{DEFAULT_SCHEDULES["cleanup"].class_path}/run/"' in page


def test_opening_it_asks_redis_nothing(operator, checkpoint_redis):
    checkpoint_redis.set(f"checkpoint:a:{old_id(40)}", "{}")
    sample_checkpoint_storage()
    calls = checkpoint_redis.info("stats")["total_commands_processed"]
    page_of(operator)
    assert checkpoint_redis.info("stats")["total_commands_processed"] == calls + 1


def test_sampling_failed_with_what_to_do_and_what_was_there_before(
    operator, checkpoint_server, checkpoint_redis, monkeypatch
):
    checkpoint_redis.set(f"checkpoint:before:{old_id(1)}", "{}")
    sample_checkpoint_storage()
    monkeypatch.setenv("LANGGRAPH_REDIS_URL", checkpoint_server.url(0, password="wrong"))
    sample_checkpoint_storage()
    page = page_of(operator)
    assert "Sampling failed" in page
    assert "check LANGGRAPH_REDIS_URL" in page
    assert "The values below were sampled" in page
    assert "before" in page


def test_sampling_failed_from_the_beginning(operator, checkpoint_server, checkpoint_redis, monkeypatch):
    monkeypatch.setenv("LANGGRAPH_REDIS_URL", checkpoint_server.url(0, password="wrong"))
    sample_checkpoint_storage()
    page = page_of(operator)
    assert "Sampling failed" in page
    assert "The values below" not in page


def test_no_keys_at_all(operator, checkpoint_redis):
    sample_checkpoint_storage()
    page = page_of(operator)
    assert "There are no keys in database 0 of redis://127.0.0.1:" in page
    assert "compare LANGGRAPH_REDIS_URL and LANGGRAPH_REDIS_DB" in page


def test_keys_of_others_alone(operator, checkpoint_redis):
    checkpoint_redis.mset({"app:cp:a": "", "celery": ""})
    sample_checkpoint_storage()
    page = page_of(operator)
    assert "None of the 2 keys looked at" in page
    assert "checkpoint_prefix" in page


def test_a_part_of_the_keys_is_called_that(operator, checkpoint_redis, monkeypatch):
    monkeypatch.setattr("ai_ops.checkpoints.sampling.MAX_KEYS", 1000)
    checkpoint_redis.mset({f"checkpoint:{number}:{old_id(40)}": "{}" for number in range(3000)})
    pin_thread("nowhere")
    sample_checkpoint_storage()
    page = page_of(operator)
    assert "of about 3,000 keys were sampled" in page
    assert "Run the cleanup as a dry run for the full count." in page
    assert "<td>Not known</td>" in page


def test_a_sampling_under_way(operator, checkpoint_redis):
    sample_checkpoint_storage()
    JobResult.objects.create(name="a run", job_model=find_job("storage"), status=JobResultStatusChoices.STATUS_STARTED)
    page = page_of(operator)
    assert "A sampling is running" in page
    assert 'hx-trigger="every 3s' in page
    JobResult.objects.update(status=JobResultStatusChoices.STATUS_SUCCESS)
    assert "ai-ops-following" not in page_of(operator)


def test_a_cleanup_since(operator, checkpoint_redis):
    sample_checkpoint_storage()
    run = {"name": "a run", "job_model": find_job("cleanup"), "date_done": timezone.now()}
    JobResult.objects.create(**run, result={"deleted_count": 3, "dryrun": True})
    assert "A cleanup has run since" not in page_of(operator)
    JobResult.objects.create(**run, result={"deleted_count": 3, "dryrun": False})
    assert "A cleanup has run since" in page_of(operator)


def test_an_old_snapshot_says_where_to_look(operator, checkpoint_redis):
    sample_checkpoint_storage()
    CheckpointStorageSnapshot.objects.update(taken=timezone.now() - timedelta(hours=5))
    page = page_of(operator)
    assert "The sample was taken 5 h ago" in page
    assert "AI Ops: sample the checkpoint storage" in page


def test_without_the_permission_to_view_there_is_no_page():
    user = User.objects.create(username="nobody")
    client = Client()
    client.force_login(user)
    assert client.get(reverse(PAGE)).status_code == 403
    assert client.post(reverse(f"{PAGE}_sample")).status_code == 403
    assert "Checkpoint Storage" not in client.get(reverse("home")).content.decode()
    assert Client().get(reverse(PAGE)).status_code == 302


def test_who_may_only_look_sees_no_buttons_and_no_pins(reader, checkpoint_redis):
    pin_thread("secret:thread")
    sample_checkpoint_storage()
    page = page_of(reader)
    assert "Refresh</" not in page
    assert "Clean up" not in page
    assert "secret:thread" not in page
    assert "Keys in the database" in page


def post(user):
    client = Client()
    client.force_login(user)
    return " ".join(client.post(reverse(f"{PAGE}_sample"), follow=True).content.decode().split())


def test_the_button_has_it_sampled_in_the_background(operator):
    page = post(operator)
    run = JobResult.objects.get(job_model=find_job("storage"))
    assert run.user == operator
    assert f'The storage is being <a href="{run.get_absolute_url()}">sampled</a>' in page
    assert not CheckpointStorageSnapshot.objects.exists()


def test_the_button_needs_the_permission_to_run_the_job(reader):
    client = Client()
    client.force_login(reader)
    assert client.post(reverse(f"{PAGE}_sample")).status_code == 403
    assert not JobResult.objects.exists()


def test_the_button_says_what_is_missing(operator):
    jobs.see_workers()
    assert "No Celery worker listens to the queue" in post(operator)
    Job.objects.filter(pk=find_job("storage").pk).update(enabled=False)
    assert "is disabled: enable it" in post(operator)
    assert not JobResult.objects.exists()


def test_it_is_in_the_navigation(reader):
    client = Client()
    client.force_login(reader)
    assert f'href="{reverse(PAGE)}"' in client.get(reverse("home")).content.decode()


def test_the_form_of_the_cleanup_says_what_a_real_run_would_delete(operator, checkpoint_redis):
    Job.objects.filter(pk=find_job("cleanup").pk).update(enabled=True)
    address = reverse("extras:job_run_by_class_path", kwargs={"class_path": find_job("cleanup").class_path})
    client = Client()
    client.force_login(operator)
    assert "There is no sample that shows how much a real run would delete now" in client.get(address).content.decode()
    for days in (0.1, 40, 50):
        checkpoint_redis.set(f"checkpoint:user:{days}:{old_id(days)}", "x" * 1000)
    sampled = sample_checkpoint_storage()
    page = " ".join(client.get(address).content.decode().split())
    assert sampled["cleanup"]["deleted_count"]
    assert f"would now delete <strong>{sampled['cleanup']['deleted_count']}</strong> keys" in page
    link = re.search('href="([^"]*dryrun=true)"', page)[1]
    ticked = '<input type="checkbox" name="dryrun"[^>]* checked'
    assert not re.search(ticked, page)
    assert re.search(ticked, client.get(address + link.removeprefix(address)).content.decode())
