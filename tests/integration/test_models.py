"""Valid MCP servers, and the sentences on invalid ones."""

from importlib import resources

import pytest
from django.core.exceptions import ValidationError
from django.db import IntegrityError
from nautobot.apps.testing import ModelTestCases, TestCase
from nautobot.extras.models import Status

from ai_ops.choices import MCPProbeChoices
from ai_ops.mcp.logic.verdicts import ProbeKind
from ai_ops.models import MCPServer, ProvisioningRecord


class MCPServerModelTest(ModelTestCases.BaseModelTestCase):
    model = MCPServer

    @classmethod
    def setUpTestData(cls):
        MCPServer.objects.create(name="one", url="http://one.example.com")
        MCPServer.objects.create(name="two", protocol="stdio")

    def test_get_docs_url(self):
        if not resources.files("ai_ops").joinpath("docs").is_dir():
            self.skipTest("The documentation has not been built.")
        super().test_get_docs_url()


class MCPServerTest(TestCase):
    def valid(self, **fields):
        server = MCPServer(**{"name": "one", "url": "http://one.example.com", **fields})
        server.validated_save()
        server.refresh_from_db()
        return server

    def refusals(self, **fields):
        with pytest.raises(ValidationError) as refusal:
            MCPServer(**{"name": "one", "url": "http://one.example.com", **fields}).full_clean()
        return refusal.value.message_dict

    def test_a_new_server_is_unhealthy(self):
        assert self.valid().status.name == "Unhealthy"

    def test_another_status_may_be_given_to_a_new_server(self):
        vulnerable = Status.objects.get(name="Vulnerable")
        assert self.valid(status=vulnerable).status == vulnerable

    def test_without_the_unhealthy_status_one_must_be_chosen(self):
        Status.objects.get(name="Unhealthy").delete()
        assert self.refusals() == {
            "status": ["Choose a status: Unhealthy, in which a new server starts, is not available."]
        }

    def test_a_status_of_other_objects_is_refused(self):
        assert list(self.refusals(status=Status.objects.create(name="Planned elsewhere"))) == ["status"]

    def test_paths_get_their_leading_slash(self):
        server = self.valid(mcp_endpoint="mcp", health_check=" health/live ")
        assert (server.mcp_endpoint, server.health_check) == ("/mcp", "/health/live")

    def test_paths_get_their_leading_slash_without_validation_too(self):
        server = MCPServer.objects.create(name="one", url="http://one.example.com", mcp_endpoint="mcp")
        assert server.mcp_endpoint == "/mcp"

    def test_an_empty_path_stays_empty(self):
        server = self.valid(mcp_endpoint="", health_check="")
        assert (server.mcp_url, server.health_check_url) == ("http://one.example.com", "http://one.example.com")

    def test_a_path_that_is_too_long_with_its_slash_is_refused(self):
        assert list(self.refusals(health_check="x" * 255)) == ["health_check"]

    def test_addresses_are_made_of_url_and_path(self):
        server = self.valid(url="https://one.example.com:8443/base/")
        assert server.mcp_url == "https://one.example.com:8443/base/mcp"
        assert server.health_check_url == "https://one.example.com:8443/base/health"

    def test_an_http_server_needs_a_url(self):
        assert self.refusals(url="  ") == {
            "url": ["Enter the URL of the HTTP server, such as http://mcp.example.com:8000."]
        }

    def test_a_stdio_server_needs_no_url(self):
        assert self.valid(protocol="stdio", url="").url == ""

    def test_a_name_is_taken_once(self):
        self.valid()
        assert list(self.refusals()) == ["name"]
        with pytest.raises(IntegrityError):
            MCPServer.objects.create(name="one", protocol="stdio")

    def test_no_value_is_an_empty_one(self):
        server = self.valid(protocol="stdio", url=None, mcp_endpoint=None, health_check=None)
        assert (server.url, server.mcp_endpoint, server.health_check) == ("", "", "")

    def test_an_unknown_choice_is_refused_by_field(self):
        assert set(self.refusals(protocol="carrier pigeon", mcp_type="rented")) == {"protocol", "mcp_type"}

    def test_a_new_server_is_verified_and_asked_for_its_page_or_over_mcp(self):
        server = self.valid()
        assert (server.probe, server.verify_tls, server.ca_file, server.secrets_group) == ("auto", True, "", None)

    def test_a_ca_file_has_an_absolute_path(self):
        assert self.valid(name="two", ca_file="/etc/ssl/internal.pem").ca_file == "/etc/ssl/internal.pem"
        for path in ("internal.pem", "/etc/\x00", "~/internal.pem"):
            with self.subTest(path):
                assert list(self.refusals(ca_file=path)) == ["ca_file"]

    def test_the_choices_of_a_probe_are_the_kinds_that_the_adapter_knows(self):
        assert set(MCPProbeChoices.values()) == set(ProbeKind)

    def test_odd_paths_are_refused_with_what_to_do(self):
        for path, sentence in (
            ("/he alth", "Remove the spaces"),
            ("/health\r\nHost: evil", "Remove the spaces"),
            ("/health\x00", "Remove the spaces"),
            ("http://one.example.com/health", "Enter only the path, such as /health"),
            ("/health#top", "Remove # from the path"),
        ):
            for field in ("mcp_endpoint", "health_check"):
                with self.subTest(path=path, field=field):
                    refusals = self.refusals(**{field: path})
                    assert list(refusals) == [field]
                    assert refusals[field][0].startswith(sentence)

    def test_urls_people_use_are_taken(self):
        for url in (
            "http://localhost",
            "http://mcp_server:8000",
            "http://10.0.0.1:9",
            "https://[2001:db8::1]:8443",
            "http://münchen.example",
            "http://one.example.com./behind/a/proxy",
            "https://xn--mnchen-3ya.example:65535/",
        ):
            with self.subTest(url):
                assert self.valid(name=url, url=url).url == url

    def test_an_upper_case_scheme_and_blanks_around_are_brought_into_shape(self):
        assert self.valid(url=" HTTPS://One.example.com ").url == "https://One.example.com"

    def test_odd_urls_are_refused_with_what_to_do(self):
        for url, sentence in ODD_URLS:
            with self.subTest(url):
                refusals = self.refusals(url=url)
                assert list(refusals) == ["url"]
                assert refusals["url"][0].startswith(sentence)

    def test_the_url_of_a_stdio_server_is_looked_at_too(self):
        assert list(self.refusals(protocol="stdio", url="http://user:secret@one.example.com")) == ["url"]

    def test_a_password_is_not_repeated_in_the_refusal(self):
        assert "secret" not in str(self.refusals(url="http://user:secret@one.example.com"))


ODD_URLS = [
    ("one.example.com:8000", "Enter a URL that starts with http://"),
    ("//one.example.com", "Enter a URL that starts with http://"),
    ("ftp://one.example.com", "Enter a URL that starts with http://"),
    ("javascript:alert(1)", "Enter a URL that starts with http://"),
    ("file:///etc/passwd", "Enter a URL that starts with http://"),
    ("http://", "Enter a URL with a valid host"),
    ("http:///path", "Enter a URL with a valid host"),
    ("http://:8000", "Enter a URL with a valid host"),
    ("http://.", "Enter a URL with a valid host"),
    ("http://one..example.com", "Enter a URL with a valid host"),
    ("http://-one.example.com", "Enter a URL with a valid host"),
    ("http://10.0.0.999", "Enter a URL with a valid host"),
    ("http://\\\\one", "Enter a URL with a valid host"),
    ("http://[fd00:ec2::254%1]", "Enter a URL with a valid host"),
    ("http://[fe80::1%25eth0]", "Enter a URL with a valid host"),
    ("http://[::ffff:169.254.169.254%lo]:80", "Enter a URL with a valid host"),
    ("http://2852039166", "Enter a URL with a valid host"),
    ("http://0xa9fea9fe", "Enter a URL with a valid host"),
    ("http://0XA9.0xFE.0xA9.0xFE", "Enter a URL with a valid host"),
    ("http://0251.0376.0251.0376", "Enter a URL with a valid host"),
    ("http://169.254.43518.", "Enter a URL with a valid host"),
    ("http://127.1", "Enter a URL with a valid host"),
    ("http://169.254.169.0xfe", "Enter a URL with a valid host"),
    ("http://%31%36%39.254.169.254", "Enter a URL with a valid host"),
    ("http://mcp%2eexample.com", "Enter a URL with a valid host"),
    ("http://０x７f000001", "Enter a URL with a valid host"),
    ("http://１２７.0.0.1", "Enter a URL with a valid host"),
    ("http://xn--/", "Enter a URL with a valid host"),
    ("http://xn--ls8h.la", "Enter a URL with a valid host"),
    ("http://💩.la", "Enter a URL with a valid host"),
    ("http://" + "a" * 64 + ".example.com", "Enter a URL with a valid host"),
    ("http://[::1", "Enter a valid URL"),
    ("http://[one]", "Enter a valid URL"),
    ("http://one.example.com:99999", "Enter a valid URL"),
    ("http://one.example.com:-1", "Enter a valid URL"),
    ("http://one.example.com:port", "Enter a valid URL"),
    ("http://exa℀mple.com", "Enter a valid URL"),
    ("http://one.example.com:0", "Enter a port from 1 to 65535"),
    ("http://user:secret@one.example.com", "Remove the user name and the password"),
    ("http://user@one.example.com", "Remove the user name and the password"),
    ("http://@one.example.com", "Remove the user name and the password"),
    ("http://one.example.com?token=1", "Remove ? and # from the URL"),
    ("http://one.example.com/#top", "Remove ? and # from the URL"),
    ("http://one.example.com?", "Remove ? and # from the URL"),
    ("http://one example.com", "Remove the spaces"),
    ("http://one.example.com/a\tb", "Remove the spaces"),
    ("http://one\x00.example.com", "Remove the spaces"),
    ("http://one.example.com/\u202e", "Remove the spaces"),
]


class ProvisioningRecordTest(TestCase):
    def test_it_is_called_by_its_key(self):
        assert str(ProvisioningRecord(key="status:Healthy")) == "status:Healthy"
