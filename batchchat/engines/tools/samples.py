"""Tools to try with: functions for `tools.run`, and an MCP server of them on standard input and output
(`python -m batchchat.engines.tools.samples`). What they say is made up from what they are asked.
"""

from __future__ import annotations

from hashlib import blake2b

_SKIES = ("sunny", "cloudy", "rainy", "windy")


def get_weather(city: str) -> dict[str, int | str]:
    """Get the weather in a city."""
    number = _number_of(city)
    return {"degrees": 1 + number % 30, "sky": _SKIES[number // 30 % 4]}


def get_time(city: str) -> str:
    """Get the time in a city."""
    minutes = _number_of(city) % 1440
    return f"{minutes // 60:02}:{minutes % 60:02}"


def set_timer(minutes: int) -> str:
    """Set a timer."""
    if not 0 < minutes <= 1440:
        raise ValueError("a timer runs for 1 to 1,440 minutes")
    return "ok"


def _number_of(city: str) -> int:
    if not city.strip():
        raise ValueError("there is no city without a name")
    return int.from_bytes(blake2b(city.strip().lower().encode(), digest_size=4).digest())


def main() -> None:
    """Serve the tools until the input closes."""
    from mcp.server.mcpserver import MCPServer

    server = MCPServer("samples")
    for tool in (get_weather, get_time, set_timer):
        server.tool()(tool)
    server.run("stdio")


if __name__ == "__main__":
    main()
