//! Creating VFs in the guest and looking at them.

use zerobridge_proto::PciAddress;

use super::link::Link;
use super::snapshot::{Snapshot, VfPlace};
use crate::machine::{Guest, GuestError};

/// Makes VFs the way a careful node does: unbound first, so that the even-numbered ones get an address from the PF
/// before their driver looks for one; the odd ones keep the random address that the driver chooses.
const CREATE: &str = r#"
pf=$1 count=$2
device=/sys/class/net/$pf/device
own=$(cat "/sys/class/net/$pf/address")
ip link set "$pf" up
echo 0 > "$device/sriov_drivers_autoprobe"
echo "$count" > "$device/sriov_numvfs"
index=0
while [ "$index" -lt "$count" ]; do
    if [ $((index % 2)) = 0 ]; then
        ip link set "$pf" vf "$index" mac "${own%:*}:1$index"
    fi
    index=$((index + 1))
done
echo 1 > "$device/sriov_drivers_autoprobe"
for virtfn in "$device"/virtfn*; do
    basename "$(readlink "$virtfn")" > /sys/bus/pci/drivers_probe
done
"#;

/// Every VF as `PF INDEX PCI`, whichever namespace its link is in.
const LIST: &str = r#"
for virtfn in /sys/class/net/*/device/virtfn*; do
    [ -e "$virtfn" ] || continue
    pf=${virtfn#/sys/class/net/}
    echo "${pf%%/*} ${virtfn##*virtfn} $(basename "$(readlink "$virtfn")")"
done
"#;

/// Shell commands that take a PCI function from the driver it is bound to and give it to another.
#[must_use]
pub fn rebinding(function: PciAddress, driver: &str) -> String {
    format!(
        "cd /sys/bus/pci/devices/{function}
         [ ! -e driver ] || echo {function} > driver/unbind
         echo {driver} > driver_override
         echo {function} > /sys/bus/pci/drivers_probe
         echo > driver_override
         [ \"$(basename \"$(readlink driver)\")\" = {driver} ]"
    )
}

impl Guest {
    /// Makes VFs bindable to vfio-pci. They can be opened by a pod's process, too, which needs a kind of IOMMU.
    ///
    /// # Errors
    /// When the guest cannot, or the VM is lost.
    pub fn load_vfio(&mut self) -> Result<(), GuestError> {
        self.run(&["modprobe", "--all", "vfio-pci", "vfio_iommu_type1"])?;
        Ok(())
    }

    /// The number of a PCI function's IOMMU group, which is the name of its device node below `/dev/vfio`.
    ///
    /// # Errors
    /// When it has none, or the VM is lost.
    pub fn iommu_group(&mut self, function: PciAddress) -> Result<String, GuestError> {
        let path = self.run(&["readlink", &format!("/sys/bus/pci/devices/{function}/iommu_group")])?;
        Ok(path.trim().rsplit('/').next().unwrap_or_default().to_owned())
    }

    /// Creates `count` VFs (at most 7 on igb) on card number `card` (from 1) and waits until udev has named them.
    ///
    /// # Errors
    /// When the guest cannot, or the VM is lost.
    pub fn create_vfs(&mut self, card: u8, count: u8) -> Result<(), GuestError> {
        let (pf, count) = (format!("enp{card}s0"), count.to_string());
        self.run(&["sh", "-ec", CREATE, "create", &pf, &count])?;
        self.run(&["udevadm", "settle"])?;
        Ok(())
    }

    /// All links of the host's namespace.
    ///
    /// # Errors
    /// When the guest cannot say, or the VM is lost.
    pub fn links(&mut self) -> Result<Vec<Link>, GuestError> {
        self.json(&["ip", "-j", "-d", "link"])
    }

    /// The VFs and where they belong.
    ///
    /// # Errors
    /// When the guest cannot say, or the VM is lost.
    pub fn vf_places(&mut self) -> Result<Vec<VfPlace>, GuestError> {
        Ok(parse_places(&self.shell(LIST)?))
    }

    /// The state of all VFs, once udev has nothing left to do.
    ///
    /// # Errors
    /// When the guest cannot say, or the VM is lost.
    pub fn snapshot(&mut self) -> Result<Snapshot, GuestError> {
        self.run(&["udevadm", "settle"])?;
        let places = self.vf_places()?;
        Ok(Snapshot::of(&places, &self.links()?))
    }

    /// The VF number `index` of card number `card` (from 1).
    ///
    /// # Errors
    /// [`GuestError::Refused`] when there is none.
    pub fn vf(&mut self, card: u8, index: u32) -> Result<PciAddress, GuestError> {
        let pf = format!("enp{card}s0");
        let places = self.vf_places()?;
        let found = places.iter().find(|place| place.pf == pf && place.index == index);
        found.map(|place| place.pci).ok_or_else(|| GuestError::Refused {
            message: format!("{pf} has no VF {index}: create VFs first"),
        })
    }
}

fn parse_places(listing: &str) -> Vec<VfPlace> {
    let parse = |line: &str| {
        let mut words = line.split_whitespace();
        let (pf, index, pci) = (words.next()?, words.next()?, words.next()?);
        Some(VfPlace { pci: pci.parse().ok()?, pf: pf.into(), index: index.parse().ok()? })
    };
    let mut places: Vec<VfPlace> = listing.lines().filter_map(parse).collect();
    places.sort_by_key(|place| place.pci);
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_sorted_by_address() {
        let places = parse_places("enp2s0 0 0000:02:10.0\nenp1s0 10 0000:01:11.4\nenp1s0 1 0000:01:10.2\n");
        let shown: Vec<String> = places.iter().map(|place| format!("{} {}", place.pf, place.index)).collect();
        assert_eq!(shown, ["enp1s0 1", "enp1s0 10", "enp2s0 0"]);
    }
}
