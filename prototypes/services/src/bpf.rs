//! The Services in the maps of `services.bpf.c`: load, attach, pin, fill, and change without a moment without an answer.
//!
//! Keys and values are arrays in the layout of the C structs, so that nothing here needs `unsafe`.

use std::fs::File;
use std::net::SocketAddrV4;
use std::path::Path;

use aya::Ebpf;
use aya::maps::{HashMap, Map, MapData};
use aya::programs::links::FdLink;
use aya::programs::{CgroupAttachMode, CgroupSockAddr};
use nix::sys::resource::UsageWho;

use crate::process::{cost, show, show_mean};
use crate::table::{Service, table, without_last};
use crate::{Outcome, figure};

const SERVICES: &str = "services";
const BACKENDS: &str = "backends";
/// Changes that are timed.
const CHANGES: u32 = 500;
/// No flag: an element is made or replaced.
const ANY: u64 = 0;

/// `struct service_key`, `struct end`: an address, a port, two bytes; all as on the wire but the protocol.
type End = [u8; 8];
/// `struct service`, `struct backend_key`: two numbers.
type Pair = [u32; 2];

/// The maps that a daemon keeps current.
pub(crate) struct Tables {
    services: HashMap<MapData, End, Pair>,
    backends: HashMap<MapData, Pair, End>,
}

impl Tables {
    /// Those that [`run`] pinned.
    pub(crate) fn open(pins: &Path) -> Outcome<Self> {
        let open =
            |name: &str| Ok::<_, aya::maps::MapError>(Map::HashMap(MapData::from_pin(pins.join(name))?));
        Ok(Self {
            services: HashMap::try_from(open(SERVICES)?)?,
            backends: HashMap::try_from(open(BACKENDS)?)?,
        })
    }

    /// Adds a Service under a number that no other has.
    fn add(&mut self, service: &Service, number: u32) -> Outcome<()> {
        for (slot, backend) in (0..).zip(&service.backends) {
            self.backends.insert([number, slot], end(*backend), ANY)?;
        }
        Ok(self.services.insert(key(service), [number, size(service)?], ANY)?)
    }

    /// Gives a Service other backends. Slots are written before the count that reaches them, and removed after it: a socket
    /// that connects meanwhile gets an old or a new backend.
    pub(crate) fn change(&mut self, old: &Service, new: &Service) -> Outcome<()> {
        let [number, _] = self.services.get(&key(old), ANY)?;
        for (slot, backend) in (0..).zip(&new.backends) {
            if old.backends.get(usize::try_from(slot)?) != Some(backend) {
                self.backends.insert([number, slot], end(*backend), ANY)?;
            }
        }
        self.services.insert(key(new), [number, size(new)?], ANY)?;
        for slot in size(new)?..size(old)? {
            self.backends.remove(&[number, slot])?;
        }
        Ok(())
    }
}

fn size(service: &Service) -> Outcome<u32> {
    Ok(u32::try_from(service.backends.len())?)
}

fn end(at: SocketAddrV4) -> End {
    let [a, b, c, d] = at.ip().octets();
    let [high, low] = at.port().to_be_bytes();
    [a, b, c, d, high, low, 0, 0]
}

fn key(service: &Service) -> End {
    let mut key = end(service.at);
    let [low, high] = u16::from(service.protocol.number()).to_ne_bytes();
    (key[6], key[7]) = (low, high);
    key
}

/// Installs everything so that it stays when this process ends, and changes one endpoint to and fro.
pub(crate) fn run(object: &Path, cgroup: &Path, pins: &Path, count: u32) -> Outcome<()> {
    let services = table(count);
    let mut loaded = None;
    let load = cost(UsageWho::RUSAGE_SELF, || {
        loaded = Some(attach(object, cgroup, pins)?);
        Ok::<_, Box<dyn std::error::Error>>(())
    })?;
    show("bpf: load, verify and attach eight programs", load);
    for (name, program) in loaded.iter().flat_map(|ebpf| ebpf.programs()) {
        if let Ok(info) = program.info() {
            let verified = info.verified_instruction_count().unwrap_or_default();
            figure(&format!("bpf: {name}, instructions that the verifier looked at"), &verified.to_string());
        }
    }
    let mut tables = Tables::open(pins)?;
    let backends: usize = services.iter().map(|service| service.backends.len()).sum();
    let whole = cost(UsageWho::RUSAGE_SELF, || {
        (0..).zip(&services).try_for_each(|(number, service)| tables.add(service, number))
    })?;
    show(&format!("bpf: install {} Services, {backends} backends", services.len()), whole);
    if let Some(full) = services.last() {
        let less = without_last(full);
        let all = cost(UsageWho::RUSAGE_SELF, || {
            (0..CHANGES).try_for_each(|_| {
                tables.change(full, &less)?;
                tables.change(&less, full)
            })
        })?;
        show_mean("bpf: one endpoint goes or comes", all, CHANGES * 2);
    }
    Ok(())
}

fn attach(object: &Path, cgroup: &Path, pins: &Path) -> Outcome<Ebpf> {
    let mut ebpf = Ebpf::load_file(object)?;
    for (name, map) in ebpf.maps() {
        map.pin(pins.join(name))?;
    }
    let cgroup = File::open(cgroup)?;
    for (name, program) in ebpf.programs_mut() {
        let name = name.to_owned();
        let program: &mut CgroupSockAddr = program.try_into()?;
        program.load()?;
        // A link admits other programs beside it whatever the mode says.
        let id = program.attach(&cgroup, CgroupAttachMode::Single)?;
        let link: FdLink = program.take_link(id)?.try_into()?;
        link.pin(pins.join(format!("link-{name}")))?;
    }
    Ok(ebpf)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::{DNS, Protocol};

    #[test]
    fn keys_are_laid_out_as_the_program_reads_them() {
        let service = Service { at: DNS, protocol: Protocol::Udp, backends: Vec::new() };
        let protocol = 17_u16.to_ne_bytes();
        assert_eq!(key(&service), [10, 96, 0, 10, 0, 53, protocol[0], protocol[1]]);
        assert_eq!(end(DNS), [10, 96, 0, 10, 0, 53, 0, 0]);
    }
}
