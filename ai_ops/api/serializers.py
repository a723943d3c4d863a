"""How objects of AI Ops look in the REST API."""

from nautobot.apps.api import NautobotModelSerializer, TaggedModelSerializerMixin
from rest_framework import serializers

from ai_ops.models import MCPServer


class MCPServerSerializer(TaggedModelSerializerMixin, NautobotModelSerializer):
    """An MCP server. Its `url` is the server's own address, not that of its record in this API."""

    # Nautobot leaves a column called "url" out of every CSV, taking it for the record's address. Under this
    # name the server's address survives an export and the import of what was exported.
    server_url = serializers.CharField(
        source="url", write_only=True, required=False, allow_blank=True, help_text="The same as url, for CSV."
    )

    class Meta:
        """Model and fields."""

        model = MCPServer
        fields = "__all__"

    def to_internal_value(self, data):
        """Refuse two addresses that contradict each other."""
        if data.get("url") and data.get("server_url") and data["url"] != data["server_url"]:
            raise serializers.ValidationError(
                {"server_url": "Give one address: url and server_url are the same field."}
            )
        return super().to_internal_value(data)

    def to_representation(self, instance):
        """Add the column that a CSV can have."""
        representation = super().to_representation(instance)
        if self._is_csv_request():
            representation["server_url"] = instance.url
        return representation
