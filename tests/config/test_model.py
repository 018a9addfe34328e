"""What the configuration says about itself."""

import attrs

from auth.membership import Membership
from trioproxy.config import Auth, PortRange, Tenant, parse_config_untrusted
from trioproxy.config.model import KEYS_OF_MAIN

TEXT = """
[auth]
proxy_group = "socks"
[tenant.main]
realms = ["example.org"]
[tenant.physics]
realms = ["physics.example.org", "phys.example.org"]
nonmembers = "global-rules"
"""


def test_realms_lead_to_tenants() -> None:
    """DESIGN section 3: each realm selects one tenant."""
    assert parse_config_untrusted(TEXT, "t").realms() == {
        "example.org": "main",
        "physics.example.org": "physics",
        "phys.example.org": "physics",
    }


def test_who_may_use_the_proxy_in_each_tenant() -> None:
    """DESIGN section 6: [auth] speaks for the tenant main; in a tenant that there is not nobody may."""
    config = parse_config_untrusted(TEXT, "t")
    assert [config.membership(tenant) for tenant in ("main", "physics", "chemistry")] == [
        Membership("socks"),
        Membership("system-proxy", admits_nonmembers=True),
        None,
    ]


def test_keys_of_the_tenant_main_stand_in_auth() -> None:
    """DESIGN section 6: what a table [tenant.NAME] says for its tenant, [auth] says for the tenant main."""
    text = TEXT.replace("[auth]", '[auth]\nnonmembers = "global-rules"\nfall_through = true\nbackends = ["a"]\n')
    config = parse_config_untrusted(text + '[auth.a]\ntype = "local"\n', "t")
    assert config.tenants() == {
        "main": Tenant(("example.org",), ("a",), "socks", "global-rules", fall_through=True),
        "physics": Tenant(("physics.example.org", "phys.example.org"), nonmembers="global-rules"),
    }
    assert {key for key in attrs.fields_dict(Tenant) if key not in ("realms", "time_zone")} == set(KEYS_OF_MAIN)


def test_nobody_is_let_in_or_asked_elsewhere_unless_somebody_says_so() -> None:
    """Law of safe defaults: who is no member stays out, and a password goes to one backend at most."""
    assert (Tenant().nonmembers, Tenant().fall_through) == ("refuse", False)
    assert (Auth().nonmembers, Auth().fall_through) == ("refuse", False)


def test_a_port_range_holds_both_ends() -> None:
    """`40000-40002` are three ports."""
    ports = PortRange(40_000, 40_002)
    assert list(ports.numbers) == [40_000, 40_001, 40_002]
    assert str(ports) == "40000-40002"
