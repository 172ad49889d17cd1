//! The addresses to assign.

use std::net::IpAddr;

use crate::Result;

pub(crate) struct Address {
    pub(crate) ip: IpAddr,
    pub(crate) length: u8,
    pub(crate) gateway: IpAddr,
}

impl Address {
    /// Parses a list of `ADDRESS/LENGTH,GATEWAY`, separated by spaces.
    pub(crate) fn parse_all(text: &str) -> Result<Vec<Self>> {
        text.split_whitespace()
            .map(|word| {
                let (address, gateway) = word.split_once(',').ok_or("an address without a gateway")?;
                let (ip, length) = address.split_once('/').ok_or("an address without a length")?;
                Ok(Self { ip: ip.parse()?, length: length.parse()?, gateway: gateway.parse()? })
            })
            .collect()
    }

    pub(crate) fn is_v4(&self) -> bool {
        self.ip.is_ipv4()
    }
}
