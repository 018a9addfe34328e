import json, os
import pytest
from tests.system.test_policies_page import *
@pytest.mark.parametrize("section", list(SECTIONS))
def test_fill(site, section):
    import tests.system.test_policies_page as t
    t.SETTLED_S = 2.0
    store = site.folder / "data" / "trioproxy.db"
    add_accounts(store)
    if "volume" in section:
        use_up(store)
    site.start(FRIDAY)
    out=[]
    for e in examples(SECTIONS[section]):
        out.append([e.typed, site.play(e)])
    for e,p in site.going_on:
        for o in out:
            if o[0]==e.typed: o[1]=p.communicate(timeout=60)[0].splitlines()
    Path(f"/tmp/sc/fill-{list(SECTIONS).index(section)}.json").write_text(json.dumps(out))
    print(site.proxy.records())
