-- Version 1 of the schema of ledger.db; the files after it add to it. `sqlite3 /var/lib/zerobridge/ledger.db 'SELECT *
-- FROM attachments'` is for operators; what a row promises is written in docs/ledger.md.

CREATE TABLE attachments (
    device            TEXT    NOT NULL PRIMARY KEY,   -- PCI address: a device has at most one attachment
    container_id      TEXT    NOT NULL CHECK (container_id <> ''),
    ifname            TEXT    NOT NULL CHECK (ifname <> ''),
    network           TEXT    NOT NULL,
    sandbox_path      TEXT    NOT NULL,
    sandbox_dev       INTEGER NOT NULL,               -- with sandbox_ino: which namespace it was, whatever the path is now
    sandbox_ino       INTEGER NOT NULL,
    pod_namespace     TEXT,
    pod_name          TEXT,
    pod_uid           TEXT,
    original          TEXT    NOT NULL CHECK (json_valid(original)),
    wanted            TEXT    NOT NULL CHECK (json_valid(wanted)),
    boot_id           TEXT    NOT NULL,
    created_at        INTEGER NOT NULL,
    UNIQUE (container_id, ifname),                    -- an owner has at most one
    CHECK ((pod_namespace IS NULL) = (pod_name IS NULL)),
    CHECK (pod_uid IS NULL OR pod_name IS NOT NULL)
) STRICT, WITHOUT ROWID;

-- An address that may not be given to anybody: leased (released_at is null), or released and resting.
CREATE TABLE leases (
    network           TEXT    NOT NULL,
    family            INTEGER NOT NULL CHECK (family IN (4, 6)),
    key               BLOB    NOT NULL CHECK (length(key) = iif(family = 4, 4, 16)),   -- network byte order: sorts
    address           TEXT    NOT NULL,                                                -- the same, to be read
    container_id      TEXT    NOT NULL CHECK (container_id <> ''),
    ifname            TEXT    NOT NULL CHECK (ifname <> ''),
    device            TEXT,
    boot_id           TEXT    NOT NULL,
    created_at        INTEGER NOT NULL,
    released_at       INTEGER,
    PRIMARY KEY (network, family, key)                -- an address has at most one owner in a network
) STRICT, WITHOUT ROWID;

CREATE INDEX leases_by_owner ON leases (container_id, ifname, network) WHERE released_at IS NULL;
CREATE INDEX leases_by_boot ON leases (network, boot_id) WHERE released_at IS NULL;
CREATE INDEX leases_resting ON leases (network, released_at) WHERE released_at IS NOT NULL;

-- One row for 4096 neighbouring addresses, one bit for each: set when an address is taken. Finding a free one reads one
-- such row instead of thousands of leases.
CREATE TABLE chunks (
    network           TEXT    NOT NULL,
    family            INTEGER NOT NULL CHECK (family IN (4, 6)),
    first             BLOB    NOT NULL CHECK (length(first) = iif(family = 4, 4, 16)),
    taken             BLOB    NOT NULL CHECK (length(taken) = 512),   -- bit i of byte b is address first + 8 * b + i
    PRIMARY KEY (network, family, first)
) STRICT, WITHOUT ROWID;

-- Where the search for the next address begins: after the last one leased, in each of a network's pools.
CREATE TABLE cursors (
    network           TEXT    NOT NULL,
    slot              INTEGER NOT NULL CHECK (slot >= 0),
    address           TEXT    NOT NULL,
    PRIMARY KEY (network, slot)
) STRICT, WITHOUT ROWID;
