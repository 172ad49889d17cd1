//! The pages use plain words, and their links lead to files and headings that exist.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
/// Words that are hard to understand for readers whose first language is not English.
const RARE_WORDS: &str = "albeit amiss anew aught befall befalls befell beside ere foretold hence hereby \
                          heretofore hitherto lest mend mended mends needn't nigh nobody nought shall somebody \
                          thence thereby therein thereof torn upon whatsoever whence wherein whoever whom whomever \
                          whosoever withal";

fn pages() -> Vec<PathBuf> {
    let in_folder = |folder: &str| fs::read_dir(Path::new(ROOT).join(folder)).expect("list pages").flatten();
    let paths =
        ["", "docs", "conf-examples", "packaging", "fuzz"].into_iter().flat_map(in_folder).map(|entry| entry.path());
    paths.filter(|path| path.extension().is_some_and(|extension| extension == "md")).collect()
}

/// The text without code, with the same lines.
fn prose(text: &str) -> String {
    let outside = |fence: &str, text: &str| {
        let parts = text.split(fence).enumerate();
        parts
            .map(|(at, part)| if at % 2 == 0 { part.into() } else { "\n".repeat(part.matches('\n').count()) })
            .collect()
    };
    let unfenced: String = outside("```", text);
    outside("`", &unfenced)
}

/// The anchors of the headings of a page.
fn anchors(path: &Path) -> BTreeSet<String> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let headings = text.lines().filter(|line| line.starts_with('#'));
    let names = headings.map(|line| line.trim_start_matches(['#', ' ']).to_lowercase());
    let kept = |c: &char| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_');
    names.map(|name| name.chars().filter(kept).collect::<String>().replace(' ', "-")).collect()
}

#[test]
fn pages_have_no_rare_words_and_no_dead_links() {
    let rare: BTreeSet<&str> = RARE_WORDS.split_whitespace().collect();
    let mut wrong = Vec::new();
    for page in pages() {
        let text = prose(&fs::read_to_string(&page).expect("read a page"));
        for (at, line) in text.lines().enumerate() {
            let lower = line.to_lowercase();
            let words = lower.split(|c: char| !c.is_alphabetic() && c != '\'').filter(|word| rare.contains(word));
            let links = line.split("](").skip(1).filter_map(|rest| rest.split(')').next());
            let broken = links.filter(|link| !link.contains("://")).filter(|link| {
                let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
                let target = if file.is_empty() { page.clone() } else { page.with_file_name(file) };
                !target.exists() || !anchor.is_empty() && !anchors(&target).contains(anchor)
            });
            wrong.extend(words.chain(broken).map(|word| format!("{}:{}: {word}", page.display(), at + 1)));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
