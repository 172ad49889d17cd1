//! The driver of a link, as ethtool(8) shows it.

use std::mem::size_of;

use nix::errno::Errno;
use nix::libc;

use crate::{Error, Result, Rtnl};

/// `ETHTOOL_GDRVINFO` of include/uapi/linux/ethtool.h.
const GET_DRIVER: u32 = 3;

/// `SIOCETHTOOL` of include/uapi/linux/sockios.h.
const ETHTOOL: libc::Ioctl = 0x8946;

/// `struct ethtool_drvinfo`.
#[repr(C)]
struct DriverInfo {
    command: u32,
    driver: [u8; 32],
    version: [u8; 32],
    firmware_version: [u8; 32],
    bus_info: [u8; 32],
    expansion_rom_version: [u8; 32],
    reserved: [u8; 12],
    counts: [u32; 5],
}

/// The driver of a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Driver {
    /// Its name, such as `virtio_net` or `veth`.
    pub name: String,
    /// The place of the device on its bus, such as the PCI address `0000:00:03.0`. Empty for a virtual link.
    pub bus_info: String,
}

impl Rtnl {
    /// Asks the kernel for the driver of a link of the socket's namespace. Returns `None` if the link has none, or is
    /// gone.
    ///
    /// # Errors
    ///
    /// `InterfaceName` if no link can have this name; otherwise the kernel's error.
    pub fn driver(&self, name: &str) -> Result<Option<Driver>> {
        super::link::check_name(name)?;
        let mut info = DriverInfo {
            command: GET_DRIVER,
            driver: [0; 32],
            version: [0; 32],
            firmware_version: [0; 32],
            bus_info: [0; 32],
            expansion_rom_version: [0; 32],
            reserved: [0; 12],
            counts: [0; 5],
        };
        // SAFETY: all bits zero are a valid `ifreq`.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
            *to = from.cast_signed();
        }
        request.ifr_ifru.ifru_data = (&raw mut info).cast();
        // SAFETY: the name ends with a zero, because it is shorter than the field. The kernel writes at most
        // `size_of::<DriverInfo>()` bytes to `info`, which lives until after the call.
        let answer = unsafe { libc::ioctl(self.socket.as_raw_fd(), ETHTOOL, &raw mut request) };
        match Errno::result(answer) {
            Ok(_) => Ok(Some(Driver { name: text(&info.driver), bus_info: text(&info.bus_info) })),
            Err(Errno::ENODEV | Errno::EOPNOTSUPP) => Ok(None),
            Err(errno) => Err(Error::kernel(format_args!("find the driver of {name}"), errno)),
        }
    }
}

const _: () = assert!(size_of::<DriverInfo>() == 196, "the size of struct ethtool_drvinfo");

/// A text up to its first zero.
fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}
