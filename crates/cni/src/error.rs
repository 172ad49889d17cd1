//! The error that a runtime reads: a code, a message, details. (spec section 5, "Error")

use std::fmt;

use serde::Serialize;

use crate::version::Version;

/// An error code. Codes to 99 belong to the specification, from 100 on to plugins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Code(pub u32);

impl Code {
    /// The `cniVersion` is unknown, or too old for the command.
    pub const INCOMPATIBLE_VERSION: Self = Self(1);
    /// A known key has a value that is not supported.
    pub const UNSUPPORTED_FIELD: Self = Self(2);
    /// The attachment does not exist.
    pub const UNKNOWN_CONTAINER: Self = Self(3);
    /// A CNI_* variable is missing or malformed.
    pub const INVALID_ENVIRONMENT: Self = Self(4);
    /// A file or pipe could not be read or written.
    pub const IO_FAILURE: Self = Self(5);
    /// Input is not the JSON that it should be.
    pub const DECODING_FAILURE: Self = Self(6);
    /// The network configuration is wrong.
    pub const INVALID_NETWORK_CONFIG: Self = Self(7);
    /// The network namespace is missing, or is the host's own.
    pub const INVALID_NETNS: Self = Self(8);
    /// Busy or interrupted: the same call may work later.
    pub const TRY_AGAIN_LATER: Self = Self(11);
    /// STATUS: an ADD would fail.
    pub const PLUGIN_NOT_AVAILABLE: Self = Self(50);
    /// Ours: the kernel refused.
    pub const KERNEL: Self = Self(100);
    /// Ours: no free address.
    pub const NO_ADDRESS: Self = Self(101);
    /// Ours: CHECK found an attachment that is not what its result says.
    pub const DIFFERS: Self = Self(102);
    /// Ours: another machine on the LAN has the address.
    pub const ADDRESS_IN_USE: Self = Self(103);
    /// Ours: the gateway does not answer.
    pub const GATEWAY_SILENT: Self = Self(104);
    /// A bug of ours.
    pub const INTERNAL: Self = Self(999);
}

/// The error of a plugin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// The kind of failure.
    pub code: Code,
    /// `operation object: cause`, lower case.
    pub msg: String,
    /// More, such as what could not be undone; often empty.
    pub details: String,
}

impl Error {
    /// An error without details.
    pub fn new(code: Code, msg: impl Into<String>) -> Self {
        Self { code, msg: msg.into(), details: String::new() }
    }

    /// A key of the network configuration has a wrong value (code 7). `key` is its path, such as `ipam.subnet`.
    pub fn config(key: &str, value: impl fmt::Display, cause: impl fmt::Display) -> Self {
        Self::new(Code::INVALID_NETWORK_CONFIG, format!("{key} {value}: {cause}"))
    }

    /// Adds a line to the details.
    pub fn with_detail(mut self, detail: impl fmt::Display) -> Self {
        if !self.details.is_empty() {
            self.details.push_str("; ");
        }
        self.details.push_str(&detail.to_string());
        self
    }

    /// The error object as it goes to stdout, with a newline.
    pub fn to_json(&self, version: Version) -> Vec<u8> {
        #[derive(Serialize)]
        struct Wire<'a> {
            #[serde(rename = "cniVersion")]
            cni_version: &'a str,
            code: u32,
            msg: &'a str,
            #[serde(skip_serializing_if = "str::is_empty")]
            details: &'a str,
        }
        let wire = Wire { cni_version: version.as_str(), code: self.code.0, msg: &self.msg, details: &self.details };
        let mut json = serde_json::to_vec(&wire).unwrap_or_default();
        json.push(b'\n');
        json
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.msg)?;
        if !self.details.is_empty() {
            write!(f, " ({})", self.details)?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}
