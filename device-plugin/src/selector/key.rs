//! The selectors by name: one list for the reader, the schema, the printed configuration and explanations.

use std::fmt;

/// A selector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Selector {
    /// [`crate::Selectors::vendors`]
    Vendors,
    /// [`crate::Selectors::devices`]
    Devices,
    /// [`crate::Selectors::drivers`]
    Drivers,
    /// [`crate::Selectors::pci_addresses`]
    PciAddresses,
    /// [`crate::Selectors::acpi_indexes`]
    AcpiIndexes,
    /// [`crate::Selectors::pf_names`]
    PfNames,
    /// [`crate::Selectors::root_devices`]
    RootDevices,
    /// [`crate::Selectors::if_names`]
    IfNames,
    /// [`crate::Selectors::link_types`]
    LinkTypes,
    /// [`crate::Selectors::is_rdma`]
    IsRdma,
    /// [`crate::Selectors::p_keys`]
    PKeys,
    /// [`crate::Selectors::ddp_profiles`]
    DdpProfiles,
    /// [`crate::Selectors::need_vhost_net`]
    NeedVhostNet,
    /// [`crate::Selectors::vdpa_type`]
    VdpaType,
    /// [`crate::Selectors::aux_types`]
    AuxTypes,
}

impl Selector {
    /// Every selector. The cheap ones that drop most come first, because the first that drops a device ends the search.
    pub const ALL: [Self; 15] = [
        Self::Vendors,
        Self::Devices,
        Self::Drivers,
        Self::PciAddresses,
        Self::AcpiIndexes,
        Self::PfNames,
        Self::RootDevices,
        Self::IfNames,
        Self::LinkTypes,
        Self::IsRdma,
        Self::PKeys,
        Self::DdpProfiles,
        Self::NeedVhostNet,
        Self::VdpaType,
        Self::AuxTypes,
    ];

    /// Its key in a configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Vendors => "vendors",
            Self::Devices => "devices",
            Self::Drivers => "drivers",
            Self::PciAddresses => "pciAddresses",
            Self::AcpiIndexes => "acpiIndexes",
            Self::PfNames => "pfNames",
            Self::RootDevices => "rootDevices",
            Self::IfNames => "ifNames",
            Self::LinkTypes => "linkTypes",
            Self::IsRdma => "isRdma",
            Self::PKeys => "pKeys",
            Self::DdpProfiles => "ddpProfiles",
            Self::NeedVhostNet => "needVhostNet",
            Self::VdpaType => "vdpaType",
            Self::AuxTypes => "auxTypes",
        }
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name())
    }
}
