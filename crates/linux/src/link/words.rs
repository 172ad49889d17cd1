//! Modes and flags of macvlan and ipvlan, in kernel spelling and in kernel numbers.

use std::fmt;
use std::str::FromStr;

/// The text is none of the words that are known here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not one of {known}")]
pub struct ParseWordError {
    /// The text as it was given.
    pub text: String,
    /// The words that would have been right, separated by commas.
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
            /// Every one of them.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// The word in kernel spelling.
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
    /// What macvlan interfaces on one parent may say to each other
    /// (`enum macvlan_mode`). The kernel's `source` mode, which needs a list of
    /// addresses, is not among them.
    MacvlanMode: u32 {
        /// Nothing.
        Private = 1 "private",
        /// What a switch outside sends back.
        Vepa = 2 "vepa",
        /// Everything, directly.
        Bridge = 4 "bridge",
        /// There is only one, and it takes the parent over.
        Passthru = 8 "passthru",
    }
}

words! {
    /// At which layer ipvlan hands packets on (`enum ipvlan_mode`). The parent has it, not
    /// the single interface: whoever sets it sets it for all.
    IpvlanMode: u16 {
        /// Like a switch.
        L2 = 0 "l2",
        /// Like a router.
        L3 = 1 "l3",
        /// Like a router whose packets pass the parent's netfilter.
        L3s = 2 "l3s",
    }
}

words! {
    /// What ipvlan interfaces on one parent may say to each other
    /// (`IPVLAN_F_PRIVATE`, `IPVLAN_F_VEPA`). The parent's as well.
    IpvlanFlag: u16 {
        /// Everything, directly.
        Bridge = 0 "bridge",
        /// Nothing.
        Private = 1 "private",
        /// What a switch outside sends back.
        Vepa = 2 "vepa",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_read_as_they_are_written() {
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
    fn an_unknown_word_is_named_beside_the_known_ones() {
        let error = "Bridge".parse::<MacvlanMode>().unwrap_err();
        assert_eq!(error.to_string(), r#""Bridge" is not one of private, vepa, bridge, passthru"#);
        assert_eq!("l4".parse::<IpvlanMode>().unwrap_err().to_string(), r#""l4" is not one of l2, l3, l3s"#);
    }
}
