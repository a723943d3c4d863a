"""Real MCP servers for the demo: FastMCP over Streamable HTTP, one on each port given, with a /health route."""

from __future__ import annotations

import asyncio
import sys

import uvicorn
from mcp.server.fastmcp import FastMCP
from starlette.requests import Request
from starlette.responses import JSONResponse, Response


def build_server(port: int) -> FastMCP:
    """Build a server with one tool."""
    server = FastMCP(f"demo-{port}", host="127.0.0.1", port=port, log_level="WARNING")

    @server.tool()
    def device_count(site: str) -> int:
        """Count the devices of a site."""
        return len(site)

    @server.custom_route("/health", methods=["GET"])
    async def health(request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    return server


async def serve(ports: list[int]) -> None:
    """Serve on all ports until the process is ended."""
    apps = [(build_server(port).streamable_http_app(), port) for port in ports]
    servers = [uvicorn.Server(uvicorn.Config(app, "127.0.0.1", port, log_level="warning")) for app, port in apps]
    await asyncio.gather(*(server.serve() for server in servers))


if __name__ == "__main__":
    asyncio.run(serve([int(port) for port in sys.argv[1:]]))
