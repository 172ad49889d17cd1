//! The environment of a call: the CNI_* variables, checked by the rules of spec section 2 "Parameters".

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use crate::error::{Code, Error};

/// The CNI_* variables, unchecked. An empty variable counts as not set.
#[derive(Debug, Clone, Default)]
#[allow(missing_docs)]
pub struct Variables {
    pub command: Option<OsString>,
    pub container_id: Option<OsString>,
    pub netns: Option<OsString>,
    pub ifname: Option<OsString>,
    pub args: Option<OsString>,
    pub path: Option<OsString>,
    pub netns_override: Option<OsString>,
}

impl Variables {
    /// The variables of this process.
    pub fn of_process() -> Self {
        let get = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        Self {
            command: get("CNI_COMMAND"),
            container_id: get("CNI_CONTAINERID"),
            netns: get("CNI_NETNS"),
            ifname: get("CNI_IFNAME"),
            args: get("CNI_ARGS"),
            path: get("CNI_PATH"),
            netns_override: get("CNI_NETNS_OVERRIDE"),
        }
    }

    /// Returns true if `CNI_NETNS_OVERRIDE` allows the caller's own netns.
    pub fn overrides_netns(&self) -> bool {
        let text = self.netns_override.as_deref().and_then(OsStr::to_str).unwrap_or_default();
        ["1", "t", "true"].iter().any(|word| text.eq_ignore_ascii_case(word))
    }

    /// The folders of `CNI_PATH`.
    pub fn folders(&self) -> Vec<PathBuf> {
        let folders = self.path.as_deref().map(std::env::split_paths);
        folders.into_iter().flatten().filter(|folder| !folder.as_os_str().is_empty()).collect()
    }
}

/// A container, and the name of an interface in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    /// `CNI_CONTAINERID`.
    pub container_id: String,
    /// `CNI_IFNAME`.
    pub ifname: String,
    /// `CNI_NETNS`: always set on ADD and CHECK, often not on DEL.
    pub netns: Option<PathBuf>,
    /// `CNI_ARGS`, or the reason why it cannot be read. Use [`Attachment::args`]. Always empty on DEL, because
    /// nothing in it may prevent a DEL.
    pub args: Result<Args, String>,
}

impl Attachment {
    /// `CNI_NETNS`, or an error that it is missing.
    pub fn netns(&self) -> Result<&Path, Error> {
        let missing = || Error::new(Code::INVALID_ENVIRONMENT, "CNI_NETNS is not set");
        self.netns.as_deref().ok_or_else(missing)
    }

    /// `CNI_ARGS`, or an error (code 4). Plugins that do not need it must not call this: the reference's `loopback`
    /// and `ipvlan` ignore it too.
    pub fn args(&self) -> Result<&Args, Error> {
        self.args.as_ref().map_err(|cause| Error::new(Code::INVALID_ENVIRONMENT, cause.clone()))
    }
}

/// The operation of a call. (spec section 2)
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// Attach a container.
    Add(Attachment),
    /// Detach it.
    Del(Attachment),
    /// Compare an attachment with its result.
    Check(Attachment),
    /// Check that an ADD would work.
    Status,
    /// Free leases without a valid attachment.
    Gc,
    /// List the supported versions.
    Version,
}

impl Operation {
    /// Reads the variables. The error (code 4) names all wrong variables.
    pub fn parse(variables: &Variables) -> Result<Self, Error> {
        let mut wrong = Vec::new();
        let operation = match text("CNI_COMMAND", variables.command.as_deref(), &mut wrong).as_deref() {
            Some("VERSION") => Some(Self::Version),
            Some("STATUS") => Some(Self::Status),
            Some("GC") => Some(Self::Gc),
            Some("ADD") => Some(Self::Add(attachment(variables, true, true, &mut wrong))),
            Some("CHECK") => Some(Self::Check(attachment(variables, true, true, &mut wrong))),
            Some("DEL") => Some(Self::Del(attachment(variables, false, false, &mut wrong))),
            Some(other) => {
                wrong.push(format!("CNI_COMMAND \"{other}\" is not one of ADD, DEL, CHECK, STATUS, GC, VERSION"));
                None
            }
            None => {
                // Every command with an attachment needs these, so they are named in the same error.
                attachment(variables, true, true, &mut wrong);
                None
            }
        };
        match operation {
            Some(operation) if wrong.is_empty() => Ok(operation),
            _ => Err(Error::new(Code::INVALID_ENVIRONMENT, wrong.join("; "))),
        }
    }
}

fn attachment(variables: &Variables, needs_netns: bool, reads_args: bool, wrong: &mut Vec<String>) -> Attachment {
    let container_id = text("CNI_CONTAINERID", variables.container_id.as_deref(), wrong);
    if let Some(cause) = container_id.as_deref().and_then(why_no_identifier) {
        wrong.push(format!("CNI_CONTAINERID \"{}\" {cause}", container_id.as_deref().unwrap_or_default()));
    }
    if needs_netns && variables.netns.is_none() {
        wrong.push("CNI_NETNS is not set".into());
    }
    let ifname = text("CNI_IFNAME", variables.ifname.as_deref(), wrong);
    if let Some(cause) = ifname.as_deref().and_then(why_no_ifname) {
        wrong.push(format!("CNI_IFNAME \"{}\" {cause}", ifname.as_deref().unwrap_or_default()));
    }
    let args = match &variables.args {
        Some(args) if reads_args => Args::parse(args),
        _ => Ok(Args::default()),
    };
    Attachment {
        container_id: container_id.unwrap_or_default(),
        ifname: ifname.unwrap_or_default(),
        netns: variables.netns.as_ref().map(PathBuf::from),
        args,
    }
}

fn text(name: &str, value: Option<&OsStr>, wrong: &mut Vec<String>) -> Option<String> {
    match value.map(OsStr::to_str) {
        Some(Some(text)) => Some(text.to_owned()),
        Some(None) => {
            wrong.push(format!("{name} {value:?} is not UTF-8", value = value.unwrap_or_default()));
            None
        }
        None => {
            wrong.push(format!("{name} is not set"));
            None
        }
    }
}

/// The reason why `text` cannot be a container ID or a network name. `None` if it can. (spec sections 1 and 2: an
/// alphanumeric character, then also `_`, `.` and `-`)
pub fn why_no_identifier(text: &str) -> Option<&'static str> {
    let mut characters = text.chars();
    match characters.next() {
        None => return Some("is empty"),
        Some(first) if !first.is_ascii_alphanumeric() => return Some("does not begin with a letter or a digit"),
        Some(_) => {}
    }
    let plain = characters.all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'));
    (!plain).then_some("has a character other than letters, digits, '_', '.' and '-'")
}

/// The reason why `text` cannot be the name of an interface. `None` if it can. (net/core/dev.c, `dev_valid_name`; we
/// also refuse control characters, and the percent sign, which the kernel replaces by a number)
pub fn why_no_ifname(text: &str) -> Option<&'static str> {
    match text {
        "" => Some("is empty"),
        "." | ".." => Some("is a path, not a name"),
        "all" | "default" => Some("stands for every interface in /proc/sys/net"),
        _ if text.len() > 15 => Some("is longer than 15 characters"),
        _ if text.contains(['/', ':']) => Some("has a '/' or ':' in it"),
        _ if text.contains('%') => Some("has a '%' in it"),
        _ if text.chars().any(|c| c.is_whitespace() || c.is_control()) => {
            Some("has a space or a control character in it")
        }
        _ => None,
    }
}

/// The reason why `text` cannot be a name or an alternative name of an interface. `None` if it can. The kernel
/// accepts all characters in an alternative name.
pub fn why_no_name_of_interface(text: &str) -> Option<&'static str> {
    match text.len() {
        0..=15 => why_no_ifname(text),
        16..=127 if text.chars().any(|c| c.is_whitespace() || c.is_control()) => {
            Some("has a space or a control character in it")
        }
        16..=127 => None,
        _ => Some("is longer than 127 characters"),
    }
}

/// `CNI_ARGS`: `KEY=VALUE` pairs, separated by semicolons.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Args(Vec<(String, String)>);

impl Args {
    /// The known keys. Others need `IgnoreUnknown`, as in the reference.
    const KNOWN: [&str; 4] = ["IgnoreUnknown", "IP", "GATEWAY", "MAC"];

    /// Reads `CNI_ARGS`. The error is a text.
    pub fn parse(args: &OsStr) -> Result<Self, String> {
        let text = args.to_str().ok_or_else(|| format!("CNI_ARGS {args:?} is not UTF-8"))?;
        let mut pairs = Vec::new();
        for pair in text.split(';').filter(|pair| !pair.is_empty()) {
            let (key, value) =
                pair.split_once('=').ok_or_else(|| format!("CNI_ARGS \"{text}\": \"{pair}\" is not KEY=VALUE"))?;
            pairs.push((key.to_owned(), value.to_owned()));
        }
        let args = Self(pairs);
        let lenient = match args.get("IgnoreUnknown") {
            None | Some("") => false,
            Some(word) if word == "1" || word.eq_ignore_ascii_case("true") => true,
            Some(word) if word == "0" || word.eq_ignore_ascii_case("false") => false,
            Some(word) => {
                return Err(format!("CNI_ARGS \"{text}\": IgnoreUnknown \"{word}\" is neither true nor false"));
            }
        };
        match args.0.iter().find(|(key, _)| !Self::KNOWN.contains(&key.as_str())) {
            Some((key, _)) if !lenient => {
                Err(format!("CNI_ARGS \"{text}\": key \"{key}\" is not known; IgnoreUnknown=1 allows unknown keys"))
            }
            _ => Ok(args),
        }
    }

    /// The value of a key. If the key is repeated, the last value.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().rev().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn variables(pairs: &[(&str, &str)]) -> Variables {
        let get = |name: &str| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value));
        Variables {
            command: get("COMMAND"),
            container_id: get("CONTAINERID"),
            netns: get("NETNS"),
            ifname: get("IFNAME"),
            args: get("ARGS"),
            path: get("PATH"),
            netns_override: get("NETNS_OVERRIDE"),
        }
    }

    fn message(pairs: &[(&str, &str)]) -> String {
        let error = Operation::parse(&variables(pairs)).unwrap_err();
        assert_eq!(error.code, Code::INVALID_ENVIRONMENT);
        error.msg
    }

    #[test]
    fn each_command_asks_for_what_the_spec_says() {
        assert_eq!(
            message(&[("COMMAND", "ADD")]),
            "CNI_CONTAINERID is not set; CNI_NETNS is not set; CNI_IFNAME is not set"
        );
        assert_eq!(message(&[("COMMAND", "DEL")]), "CNI_CONTAINERID is not set; CNI_IFNAME is not set");
        for command in ["STATUS", "GC", "VERSION"] {
            Operation::parse(&variables(&[("COMMAND", command)])).unwrap();
        }
        assert_eq!(
            message(&[("COMMAND", "UPDATE")]),
            "CNI_COMMAND \"UPDATE\" is not one of ADD, DEL, CHECK, STATUS, GC, VERSION"
        );
    }

    #[test]
    fn everything_wrong_is_named_at_once() {
        assert_eq!(
            message(&[("COMMAND", "ADD"), ("CONTAINERID", "../x"), ("IFNAME", "sixteen-letters-")]),
            "CNI_CONTAINERID \"../x\" does not begin with a letter or a digit; CNI_NETNS is not set; \
             CNI_IFNAME \"sixteen-letters-\" is longer than 15 characters"
        );
    }

    #[test]
    fn interface_names_that_the_kernel_would_refuse_or_rewrite() {
        for name in ["", ".", "..", "all", "default", "a/b", "a:b", "a b", "a\tb", "eth%d", "1234567890123456"] {
            assert!(why_no_ifname(name).is_some(), "{name:?}");
        }
        for name in ["eth0", "eth0.100", "123456789012345", "-", "ü"] {
            assert_eq!(why_no_ifname(name), None, "{name:?}");
        }
    }

    #[test]
    fn args_need_ignore_unknown_for_other_peoples_keys() {
        let args = |text: &str| Args::parse(OsStr::new(text));
        assert_eq!(args("IP=10.0.0.2;MAC=02:00:00:00:00:01").unwrap().get("IP"), Some("10.0.0.2"));
        for word in ["1", "true", "True"] {
            let args = args(&format!("IgnoreUnknown={word};K8S_POD_NAME=web=1")).unwrap();
            assert_eq!(args.get("K8S_POD_NAME"), Some("web=1"));
        }
        assert_eq!(
            args("K8S_POD_NAME=web").unwrap_err(),
            "CNI_ARGS \"K8S_POD_NAME=web\": key \"K8S_POD_NAME\" is not known; IgnoreUnknown=1 allows unknown keys"
        );
        assert_eq!(
            args("IgnoreUnknown=maybe").unwrap_err(),
            "CNI_ARGS \"IgnoreUnknown=maybe\": IgnoreUnknown \"maybe\" is neither true nor false"
        );
    }

    #[test]
    fn a_malformed_args_does_not_keep_del_from_working() {
        let operation = Operation::parse(&variables(&[
            ("COMMAND", "DEL"),
            ("CONTAINERID", "c"),
            ("IFNAME", "eth0"),
            ("ARGS", "nonsense"),
        ]));
        let expected =
            Attachment { container_id: "c".into(), ifname: "eth0".into(), netns: None, args: Ok(Args::default()) };
        assert_eq!(operation.unwrap(), Operation::Del(expected));
    }

    #[test]
    fn a_malformed_args_is_an_error_of_the_plugin_that_reads_it() {
        let operation = Operation::parse(&variables(&[
            ("COMMAND", "ADD"),
            ("CONTAINERID", "c"),
            ("IFNAME", "eth0"),
            ("NETNS", "/run/netns/c"),
            ("ARGS", "none"),
        ]));
        let Operation::Add(attachment) = operation.unwrap() else { panic!("not an ADD") };
        let error = attachment.args().unwrap_err();
        assert_eq!((error.code, error.msg.as_str()), (Code(4), "CNI_ARGS \"none\": \"none\" is not KEY=VALUE"));
    }

    #[test]
    fn netns_override_takes_the_words_for_true() {
        for (word, expected) in [("1", true), ("true", true), ("TRUE", true), ("0", false), ("", false), ("no", false)]
        {
            assert_eq!(variables(&[("NETNS_OVERRIDE", word)]).overrides_netns(), expected, "{word}");
        }
    }

    proptest! {
        /// As a runtime writes them. Lost are all values of a key but its last, and pairs that are empty.
        #[test]
        fn args_read_back(pairs in proptest::collection::vec(("[ab ü]{0,2}", "[^;\\x00]{0,8}"), 0..6)) {
            let written: String = pairs.iter().map(|(key, value)| format!(";{key}={value};")).collect();
            let args = Args::parse(OsStr::new(&format!("{written}IgnoreUnknown=1"))).unwrap();
            for (key, _) in &pairs {
                let last = pairs.iter().rev().find(|(name, _)| name == key).map(|(_, value)| value.as_str());
                prop_assert_eq!(args.get(key), last);
            }
        }
    }
}
