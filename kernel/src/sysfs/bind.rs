//! Taking a PCI function from its driver, and giving it to one (the kernel's drivers/base/bus.c).
//!
//! Both are over when the driver is done. Refuses to know why.

use std::fs;

use zerobridge_proto::PciAddress;

use super::{Sysfs, SysfsError};

impl Sysfs {
    /// Takes a function from the driver that has it.
    ///
    /// # Errors
    /// [`SysfsError::Write`].
    pub fn unbind(&self, function: PciAddress, driver: &str) -> Result<(), SysfsError> {
        self.tell_driver(function, driver, "unbind")
    }

    /// Gives a function to a driver.
    ///
    /// # Errors
    /// [`SysfsError::Write`]; the driver may have failed, and the function has none then.
    pub fn bind(&self, function: PciAddress, driver: &str) -> Result<(), SysfsError> {
        self.tell_driver(function, driver, "bind")
    }

    fn tell_driver(&self, function: PciAddress, driver: &str, verb: &str) -> Result<(), SysfsError> {
        let path = self.root().join("bus/pci/drivers").join(driver).join(verb);
        let text = function.to_string();
        fs::write(&path, &text).map_err(|source| SysfsError::Write { path, text, source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_driver_is_told_the_address() {
        let folder = tempfile::tempdir().unwrap();
        let driver = folder.path().join("bus/pci/drivers/mlx5_core");
        fs::create_dir_all(&driver).unwrap();
        let (sysfs, function) = (Sysfs::new(folder.path()), "0000:3b:00.2".parse().unwrap());
        sysfs.unbind(function, "mlx5_core").unwrap();
        sysfs.bind(function, "mlx5_core").unwrap();
        for verb in ["unbind", "bind"] {
            assert_eq!(fs::read_to_string(driver.join(verb)).unwrap(), "0000:3b:00.2");
        }
        let error = sysfs.bind(function, "absent").unwrap_err();
        assert!(matches!(error, SysfsError::Write { .. }), "{error}");
    }
}
