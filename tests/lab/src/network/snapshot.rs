//! Everything about the VFs that an attachment may change, so that "as before" is a comparison of two values.

use std::collections::BTreeMap;

use zerobridge_proto::PciAddress;

use super::link::{Link, VfInfo};

/// Which VF of which PF a PCI function is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VfPlace {
    /// The VF.
    pub pci: PciAddress,
    /// The PF's link name.
    pub pf: String,
    /// The VF's number on the PF, from 0.
    pub index: u32,
}

/// All VFs of a machine, by PCI address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    vfs: BTreeMap<PciAddress, Vec<(&'static str, String)>>,
}

impl Snapshot {
    /// What `links` (of the host's namespace) say about the VFs in `places`.
    #[must_use]
    pub fn of(places: &[VfPlace], links: &[Link]) -> Self {
        let describe = |place: &VfPlace| {
            let pf = links.iter().find(|link| link.ifname == place.pf);
            let admin = pf.and_then(|pf| pf.vfinfo_list.iter().find(|vf| vf.vf == place.index));
            let own = links.iter().find(|link| link.pci() == Some(place.pci));
            let mut fields = admin.map(admin_fields).unwrap_or_default();
            fields.extend(own.map_or_else(|| vec![("name", "(not on the host)".into())], link_fields));
            (place.pci, fields)
        };
        Self { vfs: places.iter().map(describe).collect() }
    }

    /// The VFs.
    pub fn addresses(&self) -> impl Iterator<Item = PciAddress> {
        self.vfs.keys().copied()
    }

    /// One field of one VF, such as `vlan` or `name`.
    #[must_use]
    pub fn field(&self, vf: PciAddress, name: &str) -> Option<&str> {
        self.vfs.get(&vf)?.iter().find(|field| field.0 == name).map(|field| field.1.as_str())
    }

    /// Every difference to an earlier snapshot, one sentence each.
    #[must_use]
    pub fn differences(&self, before: &Self) -> Vec<String> {
        let mut differences = Vec::new();
        let all: std::collections::BTreeSet<_> = self.vfs.keys().chain(before.vfs.keys()).collect();
        for vf in all {
            let was = before.vfs.get(vf).map(Vec::as_slice).unwrap_or_default();
            let is = self.vfs.get(vf).map(Vec::as_slice).unwrap_or_default();
            let value = |fields: &[(&str, String)], name| {
                fields
                    .iter()
                    .find(|field| field.0 == name)
                    .map_or("absent".to_owned(), |field| field.1.clone())
            };
            let names: std::collections::BTreeSet<_> = was.iter().chain(is).map(|field| field.0).collect();
            for name in names {
                let (old, new) = (value(was, name), value(is, name));
                if old != new {
                    differences.push(format!("{vf}: {name} was {old} and is {new}"));
                }
            }
        }
        differences
    }
}

fn admin_fields(vf: &VfInfo) -> Vec<(&'static str, String)> {
    let vlan = vf.vlan_list.first().cloned().unwrap_or_default();
    let word = |value: Option<bool>| value.map_or("unknown", |on| if on { "on" } else { "off" }).to_owned();
    vec![
        ("admin MAC", vf.address.to_string()),
        ("vlan", vlan.vlan.to_string()),
        ("qos", vlan.qos.to_string()),
        ("vlan protocol", vlan.protocol.unwrap_or_else(|| "802.1Q".into())),
        ("spoof check", word(vf.spoofchk)),
        ("trust", word(vf.trust)),
        ("link state", vf.link_state.clone().unwrap_or_else(|| "unknown".into())),
        ("max tx rate", vf.rate.max_tx.to_string()),
        ("min tx rate", vf.rate.min_tx.to_string()),
    ]
}

fn link_fields(link: &Link) -> Vec<(&'static str, String)> {
    let mut altnames = link.altnames.clone();
    altnames.sort();
    vec![
        ("name", link.ifname.clone()),
        ("alt names", altnames.join(" ")),
        ("MAC", link.address.clone()),
        ("mtu", link.mtu.to_string()),
        ("up", if link.is_up() { "yes" } else { "no" }.into()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINKS: &str = r#"[{"ifname":"enp1s0","mtu":1500,"flags":["UP"],"vfinfo_list":[
        {"vf":0,"address":"02:00:00:00:01:01","vlan_list":[{}],"spoofchk":true,"trust":false,"link_state":"auto"}]},
        {"ifname":"enp1s0v0","mtu":1500,"flags":[],"address":"02:00:00:00:01:01","parentdev":"0000:01:10.0"}]"#;

    fn snapshot(links: &str) -> Snapshot {
        let place = VfPlace { pci: "0000:01:10.0".parse().unwrap(), pf: "enp1s0".into(), index: 0 };
        Snapshot::of(&[place], &serde_json::from_str::<Vec<Link>>(links).unwrap())
    }

    #[test]
    fn every_field_that_an_attachment_changes_is_compared() {
        let before = snapshot(LINKS);
        for (from, to, field) in [
            (
                r#""vf":0,"address":"02:00:00:00:01:01""#,
                r#""vf":0,"address":"02:00:00:00:00:09""#,
                "admin MAC",
            ),
            (r#"[{}]"#, r#"[{"vlan":100}]"#, "vlan"),
            (r#"[{}]"#, r#"[{"vlan":0,"qos":5}]"#, "qos"),
            (r#""spoofchk":true"#, r#""spoofchk":false"#, "spoof check"),
            (r#""trust":false"#, r#""trust":true"#, "trust"),
            (r#""auto""#, r#""disable""#, "link state"),
            (r#""ifname":"enp1s0v0","mtu":1500"#, r#""ifname":"enp1s0v0","mtu":9000"#, "mtu"),
            (r#""enp1s0v0""#, r#""eth0""#, "name"),
            (r#""enp1s0v0""#, r#""enp1s0v0","altnames":["eth0"]"#, "alt names"),
            (
                r#""flags":[],"address":"02:00:00:00:01:01""#,
                r#""flags":[],"address":"02:00:00:00:00:09""#,
                "MAC",
            ),
            (r#""flags":[]"#, r#""flags":["UP"]"#, "up"),
        ] {
            let text = LINKS.replace(from, to);
            assert_ne!(text, LINKS, "{field} was not changed");
            let differences = snapshot(&text).differences(&before);
            assert_eq!(differences.len(), 1, "{field}: {differences:?}");
            assert!(differences[0].starts_with(&format!("0000:01:10.0: {field} was ")), "{differences:?}");
        }
    }

    #[test]
    fn a_vf_that_is_away_differs_from_one_that_is_home() {
        let away: Vec<Link> = serde_json::from_str::<Vec<Link>>(LINKS)
            .unwrap()
            .into_iter()
            .filter(|link| link.pci().is_none())
            .collect();
        let place = VfPlace { pci: "0000:01:10.0".parse().unwrap(), pf: "enp1s0".into(), index: 0 };
        let differences = Snapshot::of(&[place], &away).differences(&snapshot(LINKS));
        assert!(differences.iter().any(|line| line.contains("is (not on the host)")), "{differences:?}");
        assert_eq!(snapshot(LINKS).differences(&snapshot(LINKS)), Vec::<String>::new());
    }
}
