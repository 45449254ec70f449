-- Version 5: pods that have addresses of their own in cluster-wide pools.

-- A pod that an IPClaim names. It gets the address that stands here, or none at all: while the row has no address, the pod's
-- address is on another node, or nowhere yet.
CREATE TABLE claims (
    pool              TEXT    NOT NULL REFERENCES pools,
    pod_namespace     TEXT    NOT NULL CHECK (pod_namespace <> ''),
    pod_name          TEXT    NOT NULL CHECK (pod_name <> ''),
    claim             TEXT    NOT NULL CHECK (claim <> ''),   -- the IPClaim's UID
    family            INTEGER CHECK (family IN (4, 6)),
    key               BLOB    CHECK (length(key) = iif(family = 4, 4, 16)),   -- network byte order: sorts
    address           TEXT,                                   -- the same, to be read; null: not on this node
    PRIMARY KEY (pool, pod_namespace, pod_name),              -- a pod has at most one address of its own in a pool
    UNIQUE (pool, family, key),                               -- an address is at most one pod's own
    CHECK ((family IS NULL) = (address IS NULL) AND (key IS NULL) = (address IS NULL))
) STRICT, WITHOUT ROWID;
