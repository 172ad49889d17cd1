//! Reads a JSON object key by key. Every error names the path of the key and the value.
//!
//! serde_json parses the text. null, and "" for text, mean "not set", and capitals in a key make no difference, as in
//! the reference. An unknown key is not an error: [`Object::unread`] lists such keys. The program is a tenth smaller
//! than with derived readers.

use std::cell::RefCell;
use std::fmt;
use std::ptr;
use std::str::FromStr;

use ipnet::IpNet;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::error::Category;
use serde_json::{Map, Value};

use crate::error::{Code, Error};
use crate::network::Network;

/// The number of characters of a value in a message.
const SHOWN: usize = 80;

/// Parses one JSON object. The values of `skipped` keys are not kept, because they can be long.
///
/// Code 6 if the text is not JSON, with line and column, or not an object.
pub fn parse(json: &[u8], skipped: &[&str]) -> Result<Map<String, Value>, Error> {
    let undecodable = |cause: &str| Error::new(Code::DECODING_FAILURE, cause.to_owned());
    if json.iter().all(u8::is_ascii_whitespace) {
        return Err(undecodable("is empty; it must be a JSON object"));
    }
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let parsed = Keys(skipped).deserialize(&mut deserializer).and_then(|map| deserializer.end().map(|()| map));
    parsed.map_err(|error| match error.classify() {
        Category::Data => undecodable("not a JSON object"),
        _ => undecodable(&format!("not JSON: {error}")),
    })
}

struct Keys<'s>(&'s [&'s str]);

impl<'de> DeserializeSeed<'de> for Keys<'_> {
    type Value = Map<String, Value>;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Keys<'_> {
    type Value = Map<String, Value>;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }
    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Self::Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = access.next_key::<String>()? {
            if self.0.contains(&key.as_str()) {
                access.next_value::<IgnoredAny>()?;
            } else {
                map.insert(key, access.next_value()?);
            }
        }
        Ok(map)
    }
}

/// An object and its path. An object that is not set has no keys.
#[derive(Debug, Clone)]
pub struct Object<'a> {
    map: Option<&'a Map<String, Value>>,
    path: String,
    read: Option<&'a ReadKeys>,
}

/// A value other than null, and its path.
#[derive(Debug, Clone)]
pub struct Item<'a> {
    value: &'a Value,
    path: String,
    read: Option<&'a ReadKeys>,
}

/// The keys that were read, each with its object. So there is no list of known keys.
#[derive(Debug, Default)]
pub struct ReadKeys(RefCell<Vec<(*const Map<String, Value>, &'static str)>>);

/// A key of the configuration that was not read.
#[derive(Debug, PartialEq, Eq)]
pub struct Unread {
    /// The path that leads to it.
    pub path: String,
    /// The path of the key of the same object that was probably meant.
    pub nearest: Option<String>,
}

impl<'a> Object<'a> {
    /// The outermost object.
    pub fn root(map: &'a Map<String, Value>) -> Self {
        Self { map: Some(map), path: String::new(), read: None }
    }

    /// Notes in `read` which keys are read, also in nested objects.
    pub fn noting(self, read: &'a ReadKeys) -> Self {
        Self { read: Some(read), ..self }
    }

    /// Lists the keys that were not read, also in nested objects. It skips keys in `others`, keys that begin with `_`
    /// (comments), and objects of which no key was read. Empty without [`Object::noting`].
    pub fn unread(&self, others: &[&str]) -> Vec<Unread> {
        let mut unread = Vec::new();
        if let (Some(map), Some(read)) = (self.map, self.read) {
            list_unread(map, &|| self.path.clone(), read, others, &mut unread);
        }
        unread
    }

    /// The path of one of its keys, such as `ipam.subnet`.
    pub fn path(&self, key: &str) -> String {
        join(&self.path, key)
    }

    /// The value of a key. `None` for null. If the key is missing, a key with other capitals is read, as in the
    /// reference: if `Master` were ignored, the container would get another parent.
    pub fn item(&self, key: &'static str) -> Option<Item<'a>> {
        let map = self.map?;
        if let Some(read) = self.read {
            read.0.borrow_mut().push((ptr::from_ref(map), key));
        }
        let alike = || map.iter().find(|(written, _)| written.eq_ignore_ascii_case(key));
        let (written, value) = map.get_key_value(key).or_else(alike)?;
        (!value.is_null()).then(|| Item { value, path: self.path(written), read: self.read })
    }

    /// All keys with a value other than null, in the order of the text. For objects whose keys are data.
    pub fn entries(&self) -> Vec<(&'a str, Item<'a>)> {
        let present = self.map.into_iter().flatten().filter(|(_, value)| !value.is_null());
        let entry = |(key, value): (&'a String, &'a Value)| {
            (key.as_str(), Item { value, path: self.path(key), read: self.read })
        };
        present.map(entry).collect()
    }

    /// Text; "" is none.
    pub fn text(&self, key: &'static str) -> Result<Option<&'a str>, Error> {
        let text = self.item(key).map(|item| item.text()).transpose()?;
        Ok(text.filter(|text| !text.is_empty()))
    }

    /// A text that can be parsed. `what` names the expected form.
    pub fn parsed<T: FromStr>(&self, key: &'static str, what: &str) -> Result<Option<T>, Error> {
        let Some(text) = self.text(key)? else { return Ok(None) };
        text.parse().map(Some).map_err(|_| self.refuse(key, &format!("is not {what}")))
    }

    /// A network, or an address with a prefix length. `what` names the expected form.
    pub fn network(&self, key: &'static str, what: &str) -> Result<Option<IpNet>, Error> {
        Ok(self.parsed::<Network>(key, what)?.map(|Network(network)| network))
    }

    /// A number.
    pub fn number(&self, key: &'static str) -> Result<Option<u32>, Error> {
        self.item(key).map(|item| item.number()).transpose()
    }

    /// A number. 0 means not set, as in the reference.
    pub fn non_zero(&self, key: &'static str) -> Result<Option<u32>, Error> {
        Ok(self.number(key)?.filter(|number| *number != 0))
    }

    /// True or false. False if it is not set.
    pub fn flag(&self, key: &'static str) -> Result<bool, Error> {
        let Some(item) = self.item(key) else { return Ok(false) };
        item.flag().ok_or_else(|| item.refuse("is neither true nor false"))
    }

    /// An object. If it is not set, an object without keys.
    pub fn object(&self, key: &'static str) -> Result<Object<'a>, Error> {
        match self.item(key) {
            Some(item) => item.object(),
            None => Ok(Object { map: None, path: self.path(key), read: None }),
        }
    }

    /// Returns true if the object is set, also as `{}`.
    pub fn is_set(&self) -> bool {
        self.map.is_some()
    }

    /// The values of a list. Empty if it is not set.
    pub fn items(&self, key: &'static str) -> Result<Vec<Item<'a>>, Error> {
        self.item(key).map_or(Ok(Vec::new()), |item| item.items())
    }

    /// The objects of a list.
    pub fn objects(&self, key: &'static str) -> Result<Vec<Object<'a>>, Error> {
        self.items(key)?.iter().map(Item::object).collect()
    }

    /// The texts of a list.
    pub fn texts(&self, key: &'static str) -> Result<Vec<String>, Error> {
        self.items(key)?.iter().map(|item| item.text().map(str::to_owned)).collect()
    }

    /// An error (code 7) about a key.
    pub fn refuse(&self, key: &'static str, cause: &str) -> Error {
        match self.item(key) {
            Some(item) => item.refuse(cause),
            None => Error::new(Code::INVALID_NETWORK_CONFIG, format!("{}: {cause}", self.path(key))),
        }
    }
}

impl<'a> Item<'a> {
    /// The path that leads to it.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Text, empty text too.
    pub fn text(&self) -> Result<&'a str, Error> {
        self.value.as_str().ok_or_else(|| self.refuse("is not text"))
    }

    /// True or false. `None` for any other value.
    pub fn flag(&self) -> Option<bool> {
        self.value.as_bool()
    }

    /// A number that fits 32 bits.
    pub fn number(&self) -> Result<u32, Error> {
        let number = self.value.as_u64().and_then(|number| u32::try_from(number).ok());
        number.ok_or_else(|| self.refuse("is not a whole number from 0 to 4294967295"))
    }

    /// A whole number of either sign.
    pub fn signed(&self) -> Result<i64, Error> {
        self.value.as_i64().ok_or_else(|| self.refuse("is not a whole number"))
    }

    /// An object.
    pub fn object(&self) -> Result<Object<'a>, Error> {
        let map = self.value.as_object().ok_or_else(|| self.refuse("is not an object"))?;
        Ok(Object { map: Some(map), path: self.path.clone(), read: self.read })
    }

    /// The values of a list, without those that are null.
    pub fn items(&self) -> Result<Vec<Item<'a>>, Error> {
        let list = self.value.as_array().ok_or_else(|| self.refuse("is not a list"))?;
        let present = list.iter().enumerate().filter(|(_, value)| !value.is_null());
        let item = |(index, value)| Item { value, path: format!("{}[{index}]", self.path), read: self.read };
        Ok(present.map(item).collect())
    }

    /// An error (code 7) that names path and value.
    pub fn refuse(&self, cause: &str) -> Error {
        let text = self.value.to_string();
        let shown: String = text.chars().take(SHOWN).collect();
        let more = if shown.len() < text.len() { "..." } else { "" };
        Error::config(&self.path, format_args!("{shown}{more}"), cause)
    }
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

/// Paths are only built for unread keys, because most configurations have none.
fn list_unread(
    map: &Map<String, Value>,
    path: &dyn Fn() -> String,
    read: &ReadKeys,
    others: &[&str],
    unread: &mut Vec<Unread>,
) {
    let read_keys = read.0.borrow();
    let known = || read_keys.iter().filter(|(its, _)| ptr::eq(*its, map)).map(|(_, key)| *key);
    if known().next().is_none() {
        return;
    }
    let is_ours = |key: &str| !key.starts_with('_') && !others.contains(&key);
    for (key, value) in map.iter().filter(|(key, value)| !value.is_null() && is_ours(key)) {
        if known().any(|its| its.eq_ignore_ascii_case(key)) {
            list_unread_in(value, &|| join(&path(), key), read, others, unread);
        } else {
            let nearest = nearest(key, known()).map(|nearest| join(&path(), nearest));
            unread.push(Unread { path: join(&path(), key), nearest });
        }
    }
}

fn list_unread_in(
    value: &Value,
    path: &dyn Fn() -> String,
    read: &ReadKeys,
    others: &[&str],
    unread: &mut Vec<Unread>,
) {
    match value {
        Value::Object(map) => list_unread(map, path, read, others, unread),
        Value::Array(values) => values.iter().enumerate().for_each(|(index, value)| {
            list_unread_in(value, &|| format!("{}[{index}]", path()), read, others, unread);
        }),
        _ => {}
    }
}

/// The most similar key, if at most one character in three differs.
fn nearest(key: &str, known: impl Iterator<Item = &'static str>) -> Option<&'static str> {
    let key = key.to_ascii_lowercase();
    let distance = |its: &str| strsim::osa_distance(&key, &its.to_ascii_lowercase());
    let nearest = known.map(|its| (distance(its), its)).min()?;
    (nearest.0 * 3 <= key.len().max(nearest.1.len())).then_some(nearest.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message<T: fmt::Debug>(outcome: Result<T, Error>) -> String {
        let error = outcome.unwrap_err();
        assert_eq!(error.code, Code::INVALID_NETWORK_CONFIG);
        error.msg
    }

    #[test]
    fn values_that_mean_not_set() {
        let map = parse(br#" {"a":null,"b":"","c":0,"d":[null,"x"],"e":{}} "#, &[]).unwrap();
        let root = Object::root(&map);
        assert_eq!(root.text("a").unwrap(), None);
        assert_eq!(root.text("b").unwrap(), None);
        assert_eq!(root.text("absent").unwrap(), None);
        assert_eq!(root.non_zero("c").unwrap(), None);
        assert_eq!(root.number("c").unwrap(), Some(0));
        assert_eq!(root.texts("d").unwrap(), ["x"]);
        assert!(root.object("e").unwrap().is_set());
        assert!(!root.object("a").unwrap().is_set());
        assert_eq!(root.object("a").unwrap().text("x").unwrap(), None);
        assert!(!root.flag("a").unwrap());
        assert!(root.items("absent").unwrap().is_empty());
    }

    #[test]
    fn capitals_in_a_key_make_no_difference_unless_it_is_there_as_spelled() {
        let map = parse(br#"{"Master":"ens3","MTU":1400,"mtu":9000,"IPAM":{"Subnet":7}}"#, &[]).unwrap();
        let root = Object::root(&map);
        assert_eq!(root.text("master").unwrap(), Some("ens3"));
        assert_eq!(root.number("mtu").unwrap(), Some(9000));
        let ipam = root.object("ipam").unwrap();
        assert_eq!(message(ipam.text("subnet")), "IPAM.Subnet 7: is not text");
        assert_eq!(root.text("mode").unwrap(), None);
    }

    #[test]
    fn every_error_names_the_path_and_the_value() {
        let map =
            parse(br#"{"n":-1,"big":4294967296,"o":[],"l":{"x":[[{"s":7},"ten"]]},"t":"ten","f":1.5}"#, &[]).unwrap();
        let root = Object::root(&map);
        assert_eq!(message(root.number("n")), "n -1: is not a whole number from 0 to 4294967295");
        assert_eq!(message(root.number("big")), "big 4294967296: is not a whole number from 0 to 4294967295");
        assert_eq!(message(root.number("f")), "f 1.5: is not a whole number from 0 to 4294967295");
        assert_eq!(message(root.object("o")), "o []: is not an object");
        assert_eq!(message(root.flag("t")), "t \"ten\": is neither true nor false");
        assert_eq!(message(root.items("l")), "l {\"x\":[[{\"s\":7},\"ten\"]]}: is not a list");
        assert_eq!(message(root.parsed::<u8>("t", "a small number")), "t \"ten\": is not a small number");
        let inner = root.object("l").unwrap().items("x").unwrap()[0].items().unwrap();
        assert_eq!(message(inner[0].object().unwrap().text("s")), "l.x[0][0].s 7: is not text");
        assert_eq!(message(inner[1].object()), "l.x[0][1] \"ten\": is not an object");
        assert_eq!(message::<()>(Err(root.refuse("absent", "is missing"))), "absent: is missing");
    }

    #[test]
    fn a_long_value_is_cut() {
        let map = parse(format!(r#"{{"t":"{}"}}"#, "ü".repeat(200)).as_bytes(), &[]).unwrap();
        let text = message(Object::root(&map).number("t"));
        assert_eq!(text, format!("t \"{}...: is not a whole number from 0 to 4294967295", "ü".repeat(79)));
    }

    #[test]
    fn text_that_is_no_object() {
        let refused = |json: &str| {
            let error = parse(json.as_bytes(), &[]).unwrap_err();
            assert_eq!(error.code, Code::DECODING_FAILURE);
            error.msg
        };
        assert_eq!(refused(" \n"), "is empty; it must be a JSON object");
        assert_eq!(refused("[1]"), "not a JSON object");
        assert_eq!(refused("7"), "not a JSON object");
        assert_eq!(refused("lan"), "not JSON: expected value at line 1 column 1");
        assert_eq!(refused("{\"name\":"), "not JSON: EOF while parsing a value at line 1 column 8");
        assert_eq!(refused("{} {}"), "not JSON: trailing characters at line 1 column 4");
        assert!(
            refused(&"[".repeat(100_000)).starts_with("not JSON: recursion limit")
                || refused(&"[".repeat(9)) == "not a JSON object"
        );
    }

    #[test]
    fn keys_that_nobody_reads_are_listed_with_the_nearest_that_somebody_does() {
        let map = parse(
            br#"{"mastr":"ens3","Mode":"l2","vlan":100,"_comment":"x","args":{"cni":{"y":1}},"dns":{"nameserver":[]},
                 "more":{"z":1},"sets":[[{"subnet":"s","rangestart":"a","gatway":"b"}]]}"#,
            &[],
        )
        .unwrap();
        let read = ReadKeys::default();
        let root = Object::root(&map).noting(&read);
        for key in ["master", "mode", "more"] {
            root.item(key);
        }
        assert_eq!(root.object("args").unwrap().object("cni").unwrap().text("ips").unwrap(), None);
        assert!(root.object("dns").unwrap().items("nameservers").unwrap().is_empty());
        for set in root.items("sets").unwrap() {
            let range = set.items().unwrap()[0].object().unwrap();
            ["subnet", "rangeStart", "gateway"].iter().for_each(|key| _ = range.item(key));
        }
        let unread =
            |path: &str, nearest: Option<&str>| Unread { path: path.into(), nearest: nearest.map(str::to_owned) };
        let expected = [
            unread("dns.nameserver", Some("dns.nameservers")),
            unread("mastr", Some("master")),
            unread("sets[0][0].gatway", Some("sets[0][0].gateway")),
            unread("vlan", None),
        ];
        assert_eq!(root.unread(&["args"]), expected);
        assert_eq!(Object::root(&map).unread(&[]), []);
    }

    #[test]
    fn skipped_keys_are_not_kept() {
        let map = parse(br#"{"long":[1,2,3],"name":"lan"}"#, &["long"]).unwrap();
        assert_eq!(map.keys().collect::<Vec<_>>(), ["name"]);
    }
}
