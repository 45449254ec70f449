//! `resolv.conf(5)`, which host-local's key `resolvConf` points at.

use std::path::Path;

use zerobridge_proto::cni::{CniError, Dns, ErrorCode};

use crate::PoolConfig;

impl PoolConfig {
    /// The name resolution of a container of this pool: `dns`, or what the file that `resolvConf` names holds now.
    ///
    /// # Errors
    /// Code 5 when that file cannot be read.
    pub fn name_resolution(&self) -> Result<Dns, CniError> {
        self.resolv_conf.as_deref().map_or_else(|| Ok(self.dns.clone()), read)
    }
}

fn read(path: &Path) -> Result<Dns, CniError> {
    let text = std::fs::read_to_string(path).map_err(|source| {
        CniError::new(ErrorCode::IO, format!("ipam.resolvConf: {} cannot be read", path.display()))
            .with_details(source.to_string())
    })?;
    Ok(parse_resolv_conf(&text))
}

/// Reads name servers, domain, search list and options. Of `domain` and `search`, which exclude each other in the file,
/// both are kept as they came, as host-local does; other keywords and malformed lines are passed over, as the resolver
/// does.
fn parse_resolv_conf(text: &str) -> Dns {
    let mut dns = Dns::default();
    for line in text.lines() {
        let mut words = line.split_whitespace().map(str::to_owned);
        match words.next().as_deref() {
            Some("nameserver") => dns.nameservers.extend(words.next()),
            Some("domain") => dns.domain = words.next(),
            Some("search") => dns.search = words.collect(),
            Some("options") => dns.options.extend(words),
            _ => {}
        }
    }
    dns
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_as_the_resolver_reads_it() {
        let text = "# comment\n; another\nnameserver 10.0.0.1\nnameserver\tfd00::1 \nsearch x.y\nsearch a.b  c.d\n\
                    options ndots:5\noptions edns0 rotate\ndomain a.b\nsortlist 1.2.3.4\nnameserver\n";
        let dns = parse_resolv_conf(text);
        assert_eq!(dns.nameservers, ["10.0.0.1", "fd00::1"]);
        assert_eq!(dns.search, ["a.b", "c.d"]);
        assert_eq!(dns.options, ["ndots:5", "edns0", "rotate"]);
        assert_eq!(dns.domain.as_deref(), Some("a.b"));
    }
}
