//! Exclude patterns of a release: lines of patterns, an empty line, lines of paths.

use std::path::Path;

use whit::agent::scan::Selection;

pub fn run(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let (patterns, paths) = text.split_once("\n\n").unwrap_or((text, ""));
    let exclude = patterns.lines().map(str::to_owned).collect();
    match (Selection { exclude, ..Selection::default() }).patterns() {
        Ok(patterns) => {
            for path in paths.lines().take(16) {
                for is_dir in [false, true] {
                    let below = Path::new(path.trim_start_matches('/'));
                    let first = patterns.left_out(below, is_dir);
                    assert_eq!(patterns.left_out(below, is_dir), first);
                }
            }
        }
        Err(error) => drop(error.to_string()),
    }
}

pub fn seeds() -> Vec<Vec<u8>> {
    [
        "*.log\n/target/\ndocs/**/draft-?.md\n\na.log\ntarget\ndocs/x/draft-1.md",
        "{a,b}*[!0-9]\n!keep\n# no comment\n\\!bang\n\nab",
        "**/node_modules\n**\na/**/b/**/c\n\na/x/y/b/z/c",
        "[\n\na",
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}
