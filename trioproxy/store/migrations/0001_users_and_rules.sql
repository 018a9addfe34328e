-- Plain SQL that PostgreSQL reads as well. Times are ISO 8601 texts in UTC.

CREATE TABLE counter (
    name TEXT PRIMARY KEY,
    value BIGINT NOT NULL
);
INSERT INTO counter (name, value) VALUES ('revision', 0), ('rule_id', 0);

CREATE TABLE local_user (
    tenant TEXT NOT NULL,
    name TEXT NOT NULL,
    password_hash TEXT NOT NULL,
    disabled INTEGER NOT NULL CHECK (disabled IN (0, 1)),
    valid_from TEXT,
    valid_until TEXT,
    sources TEXT, -- networks with spaces between them; NULL is everywhere, an empty text is nowhere
    epoch TEXT NOT NULL,
    PRIMARY KEY (tenant, name)
);

CREATE TABLE membership (
    tenant TEXT NOT NULL,
    user_name TEXT NOT NULL,
    group_name TEXT NOT NULL,
    PRIMARY KEY (tenant, user_name, group_name),
    FOREIGN KEY (tenant, user_name) REFERENCES local_user (tenant, name) ON DELETE CASCADE
);

CREATE TABLE rule (
    id BIGINT PRIMARY KEY, -- from the counter rule_id, so that no id is ever used again
    kind TEXT NOT NULL CHECK (kind IN ('global', 'tenant', 'group', 'user')),
    tenant TEXT NOT NULL, -- empty for kind 'global'
    name TEXT NOT NULL, -- empty for kinds 'global' and 'tenant'
    position BIGINT NOT NULL, -- the order inside one layer; without gaps, from 1
    content TEXT NOT NULL -- the canonical text of the rule
);
CREATE INDEX rule_layer ON rule (kind, tenant, name, position);
