//! The pages use plain words, and their links lead to files and headings that exist.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
/// Words that readers with another first language may not know.
const RARE_WORDS: [&str; 14] = [
    "shall",
    "lest",
    "amiss",
    "anew",
    "befall",
    "whoever",
    "whomever",
    "somebody",
    "nobody",
    "torn",
    "heretofore",
    "mend",
    "beside",
    "aught",
];

fn pages() -> Vec<PathBuf> {
    let in_folder = |folder: &str| fs::read_dir(Path::new(ROOT).join(folder)).expect("list pages").flatten();
    let paths =
        ["", "docs", "conf-examples", "packaging", "fuzz"].into_iter().flat_map(in_folder).map(|entry| entry.path());
    paths.filter(|path| path.extension().is_some_and(|extension| extension == "md")).collect()
}

/// The text without code.
fn prose(text: &str) -> String {
    let outside = |fence: &str, text: &str| text.split(fence).step_by(2).collect::<Vec<_>>().join("");
    outside("`", &outside("```", text))
}

/// The anchors of the headings of a page.
fn anchors(path: &Path) -> BTreeSet<String> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let headings = text
        .lines()
        .filter(|line| line.starts_with('#'))
        .map(|line| line.trim_start_matches(['#', ' ']).to_lowercase());
    let kept = |c: &char| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_');
    headings.map(|heading| heading.chars().filter(kept).collect::<String>().replace(' ', "-")).collect()
}

#[test]
fn pages_have_no_rare_words_and_no_dead_links() {
    let mut wrong = Vec::new();
    for page in pages() {
        let text = fs::read_to_string(&page).expect("read a page");
        let lower = prose(&text).to_lowercase();
        let words = lower.split(|c: char| !c.is_alphabetic());
        wrong.extend(words.filter(|word| RARE_WORDS.contains(word)).map(|word| format!("{}: {word}", page.display())));
        for link in
            text.split("](").skip(1).filter_map(|rest| rest.split(')').next()).filter(|link| !link.contains("://"))
        {
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() { page.clone() } else { page.with_file_name(file) };
            let exists = target.exists() && (anchor.is_empty() || anchors(&target).contains(anchor));
            wrong.extend((!exists).then(|| format!("{}: {link}", page.display())));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
