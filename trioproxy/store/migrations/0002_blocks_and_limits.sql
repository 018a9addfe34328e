INSERT INTO counter (name, value) VALUES ('block_id', 0);

CREATE TABLE block (
    id BIGINT PRIMARY KEY, -- from the counter block_id, so that no id is ever used again
    tenant TEXT NOT NULL, -- empty: for all of them
    kind TEXT NOT NULL CHECK (kind IN ('user', 'source', 'target', 'everything')),
    subject TEXT NOT NULL, -- canonical; empty for kind 'everything'
    reason TEXT NOT NULL,
    set_by TEXT NOT NULL,
    set_at TEXT NOT NULL,
    ends_at TEXT -- NULL: when it is removed
);

CREATE TABLE limits (
    kind TEXT NOT NULL CHECK (kind IN ('global', 'tenant', 'group', 'user')),
    tenant TEXT NOT NULL, -- empty for kind 'global'
    name TEXT NOT NULL, -- empty for kinds 'global' and 'tenant'
    together INTEGER NOT NULL CHECK (together IN (0, 1)),
    content TEXT NOT NULL, -- the canonical text of the limit
    PRIMARY KEY (kind, tenant, name, together)
);
