-- Version 2: addresses that foreign hosts have, and leases that know their pod and what carries them.

-- An address that a foreign host was found to have on the link before it was given to a container. Not given out until
-- the foreign host has not been seen for a while. Its bit in `chunks` is set, and it has no row in `leases`.
CREATE TABLE set_aside (
    network           TEXT    NOT NULL,
    family            INTEGER NOT NULL CHECK (family IN (4, 6)),
    key               BLOB    NOT NULL CHECK (length(key) = iif(family = 4, 4, 16)),   -- network byte order: sorts
    address           TEXT    NOT NULL,                                                -- the same, to be read
    mac               TEXT    NOT NULL,                                                -- the foreign host's
    container_id      TEXT    NOT NULL CHECK (container_id <> ''),                     -- who was to have it
    ifname            TEXT    NOT NULL CHECK (ifname <> ''),
    seen_at           INTEGER NOT NULL,
    PRIMARY KEY (network, family, key)
) STRICT, WITHOUT ROWID;

CREATE INDEX set_aside_by_time ON set_aside (network, seen_at);

ALTER TABLE leases ADD COLUMN pod_namespace TEXT;
ALTER TABLE leases ADD COLUMN pod_name TEXT CHECK ((pod_namespace IS NULL) = (pod_name IS NULL));
ALTER TABLE leases ADD COLUMN pod_uid TEXT CHECK (pod_uid IS NULL OR pod_name IS NOT NULL);
-- For audits: what carries the address.
ALTER TABLE leases ADD COLUMN mac TEXT;
ALTER TABLE leases ADD COLUMN vlan INTEGER CHECK (vlan BETWEEN 1 AND 4094);
ALTER TABLE leases ADD COLUMN rdma TEXT;

-- A lease that came with an attachment is that attachment's pod's.
UPDATE leases SET (pod_namespace, pod_name, pod_uid) =
    (SELECT pod_namespace, pod_name, pod_uid FROM attachments
     WHERE attachments.container_id = leases.container_id AND attachments.ifname = leases.ifname);

CREATE INDEX leases_by_pod ON leases (network, pod_namespace, pod_name, ifname) WHERE pod_name IS NOT NULL;
