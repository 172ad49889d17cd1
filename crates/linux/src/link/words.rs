//! Modes and flags of macvlan and ipvlan: the kernel's words and numbers.

use std::fmt;
use std::str::FromStr;

/// The text is not one of the known words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not one of {known}")]
pub struct ParseWordError {
    /// The text.
    pub text: String,
    /// The known words, separated by commas.
    pub known: String,
}

macro_rules! words {
    ($(#[$about:meta])* $name:ident: $number:ty {
        $($(#[$note:meta])* $variant:ident = $value:literal $word:literal,)+
    }) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name {
            $($(#[$note])* $variant,)+
        }

        impl $name {
            /// All values.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// Returns the kernel's word.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }

            pub(crate) const fn number(self) -> $number {
                match self { $(Self::$variant => $value,)+ }
            }

            pub(crate) fn from_number(number: $number) -> Option<Self> {
                Self::ALL.iter().copied().find(|word| word.number() == number)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl FromStr for $name {
            type Err = ParseWordError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                let known = Self::ALL.iter();
                known.clone().copied().find(|word| word.as_str() == text).ok_or_else(|| {
                    ParseWordError {
                        text: text.to_owned(),
                        known: known.map(|word| word.as_str()).collect::<Vec<_>>().join(", "),
                    }
                })
            }
        }
    };
}

words! {
    /// How macvlan links on one parent reach each other. (`enum macvlan_mode`) The mode `source`, which needs a list of
    /// addresses, is missing.
    MacvlanMode: u32 {
        /// They do not reach each other.
        Private = 1 "private",
        /// They reach each other through a switch that sends frames back.
        Vepa = 2 "vepa",
        /// They reach each other directly.
        Bridge = 4 "bridge",
        /// The link has the parent for itself, and uses its MAC.
        Passthru = 8 "passthru",
    }
}

words! {
    /// The layer at which ipvlan forwards packets. (`enum ipvlan_mode`) All ipvlan links of one parent have the same
    /// mode: the one that was set last.
    IpvlanMode: u16 {
        /// The parent forwards like a switch.
        L2 = 0 "l2",
        /// The parent forwards like a router.
        L3 = 1 "l3",
        /// As `L3`, and packets pass the netfilter of the parent's namespace.
        L3s = 2 "l3s",
    }
}

words! {
    /// How ipvlan links on one parent reach each other. (`IPVLAN_F_PRIVATE`, `IPVLAN_F_VEPA`) All of them have the same
    /// flag, as with the mode.
    IpvlanFlag: u16 {
        /// They reach each other directly.
        Bridge = 0 "bridge",
        /// They do not reach each other.
        Private = 1 "private",
        /// They reach each other through a switch that sends frames back.
        Vepa = 2 "vepa",
    }
}

words! {
    /// The protocol of a VLAN tag: its EtherType. (`IFLA_VLAN_PROTOCOL`)
    VlanProtocol: u16 {
        /// The tag of a customer. (`ETH_P_8021Q`)
        Dot1Q = 0x8100 "802.1Q",
        /// The outer tag of a provider, also called `QinQ`. (`ETH_P_8021AD`)
        Dot1Ad = 0x88a8 "802.1ad",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_read_back() {
        for &mode in MacvlanMode::ALL {
            assert_eq!(mode.to_string().parse(), Ok(mode));
            assert_eq!(MacvlanMode::from_number(mode.number()), Some(mode));
        }
        for &mode in IpvlanMode::ALL {
            assert_eq!(mode.to_string().parse(), Ok(mode));
        }
        for &flag in IpvlanFlag::ALL {
            assert_eq!(flag.to_string().parse(), Ok(flag));
        }
    }

    #[test]
    fn the_error_names_an_unknown_word_and_the_known_ones() {
        let error = "Bridge".parse::<MacvlanMode>().unwrap_err();
        assert_eq!(error.to_string(), r#""Bridge" is not one of private, vepa, bridge, passthru"#);
        assert_eq!("l4".parse::<IpvlanMode>().unwrap_err().to_string(), r#""l4" is not one of l2, l3, l3s"#);
    }
}
