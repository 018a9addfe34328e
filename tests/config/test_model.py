"""What the configuration says about itself."""

from trioproxy.config import PortRange, parse_config_untrusted

TEXT = """
[auth]
proxy_group = "socks"
[tenant.main]
realms = ["example.org"]
[tenant.physics]
realms = ["physics.example.org", "phys.example.org"]
"""


def test_realms_lead_to_tenants() -> None:
    """DESIGN section 3: each realm selects one tenant."""
    assert parse_config_untrusted(TEXT, "t").realms() == {
        "example.org": "main",
        "physics.example.org": "physics",
        "phys.example.org": "physics",
    }


def test_the_proxy_group_of_each_tenant() -> None:
    """DESIGN section 6: [auth] speaks for the tenant main; a tenant that there is not has no group."""
    config = parse_config_untrusted(TEXT, "t")
    assert [config.proxy_group(tenant) for tenant in ("main", "physics", "chemistry")] == [
        "socks",
        "system-proxy",
        None,
    ]


def test_a_port_range_holds_both_ends() -> None:
    """`40000-40002` are three ports."""
    ports = PortRange(40_000, 40_002)
    assert list(ports.numbers) == [40_000, 40_001, 40_002]
    assert str(ports) == "40000-40002"
