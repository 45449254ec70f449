//! One VM with its VFs and, once a test asks for it, its node: what a scenario is given.

use thiserror::Error;

use crate::machine::{Guest, GuestError, Hardware, Vm, VmError};
use crate::network::{PLUGIN_FOLDER, Snapshot};
use crate::node::Node;
use crate::prepare::Prepared;
use crate::programs::{Programs, ProgramsError};

/// VFs on each card.
pub const VFS_PER_CARD: u8 = 4;
/// Cards.
pub const CARDS: u8 = 2;

/// Why the lab is not ready for a scenario.
#[derive(Debug, Error)]
pub enum LabError {
    /// No VM.
    #[error(transparent)]
    Vm(#[from] VmError),
    /// The guest could not be set up.
    #[error(transparent)]
    Guest(#[from] GuestError),
    /// The programs under test are not there.
    #[error(transparent)]
    Programs(#[from] ProgramsError),
}

/// A VM with two cards of four VFs each.
#[derive(Debug)]
pub struct Lab {
    /// The VM.
    pub vm: Vm,
    prepared: Prepared,
    pristine: Snapshot,
    node: Option<Node>,
}

impl Lab {
    /// Boots the VM and creates the VFs.
    ///
    /// # Errors
    /// What did not come up.
    pub fn boot(prepared: &Prepared) -> Result<Self, LabError> {
        Self::boot_on(prepared, &Hardware { cards: CARDS, ..Hardware::default() })
    }

    /// [`Lab::boot`] on a machine whose clock counts instructions, for figures that the host's other work does not change.
    ///
    /// # Errors
    /// As [`Lab::boot`].
    pub fn boot_counting(prepared: &Prepared) -> Result<Self, LabError> {
        Self::boot_on(prepared, &Hardware { cards: CARDS, counts_instructions: true, ..Hardware::default() })
    }

    fn boot_on(prepared: &Prepared, hardware: &Hardware) -> Result<Self, LabError> {
        let mut vm = Vm::boot(prepared, hardware)?;
        for card in 1..=CARDS {
            vm.guest.create_vfs(card, VFS_PER_CARD)?;
        }
        let pristine = vm.guest.snapshot()?;
        Ok(Self { vm, prepared: prepared.clone(), pristine, node: None })
    }

    /// The VFs as they were created, before anything used them.
    #[must_use]
    pub fn pristine(&self) -> Snapshot {
        self.pristine.clone()
    }

    /// Installs the CNI plugins under test, for a scenario that calls them by hand.
    ///
    /// # Errors
    /// When they have not been built.
    pub fn install_plugins(&mut self) -> Result<&mut Guest, LabError> {
        Programs::locate()?.install_plugins(&mut self.vm.guest)?;
        Ok(&mut self.vm.guest)
    }

    /// Installs the CNI plugins under test, the reference plugins beside them, and `cnitool`, which calls them as a runtime
    /// does.
    ///
    /// # Errors
    /// When the plugins under test have not been built.
    pub fn install_reference(&mut self) -> Result<&mut Guest, LabError> {
        let folders =
            [&self.prepared.cni_plugins, &self.prepared.cnitool].map(|path| path.display().to_string());
        let guest = self.install_plugins()?;
        for folder in folders {
            guest.run(&["cp", "-r", &format!("{folder}/."), PLUGIN_FOLDER])?;
        }
        Ok(guest)
    }

    /// The guest and its node, which is started when it is first asked for.
    ///
    /// # Errors
    /// When the programs under test have not been built, or the node does not come up.
    pub fn node(&mut self) -> Result<(&mut Guest, &mut Node), LabError> {
        let node = match self.node.take() {
            Some(node) => node,
            None => Node::start(&mut self.vm.guest, &self.prepared, &Programs::locate()?)?,
        };
        Ok((&mut self.vm.guest, self.node.insert(node)))
    }

    /// `lab-guest` as the guest sees it.
    #[must_use]
    pub fn guest_program(&self) -> String {
        self.prepared.guest.display().to_string()
    }
}
