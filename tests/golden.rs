//! Golden captures: every folder of `captures/`, with 1, 2 and 4 workers.

use offpath_testkit::golden;

use crate::support::{binary, root};

#[test]
fn golden_captures_give_what_their_folders_hold() {
    let folders = golden::folders(&root().join("captures")).unwrap();
    assert!(folders.len() >= 20, "only {} golden captures", folders.len());
    let mut failures = Vec::new();
    for folder in &folders {
        for workers in [1, 2, 4] {
            if let Err(e) = golden::check_binary(folder, binary(), workers) {
                failures.push(format!("{} with {workers} workers: {e}", folder.display()));
                break;
            }
        }
    }
    assert!(failures.is_empty(), "{} of {} differ:\n{}", failures.len(), folders.len(), failures.join("\n"));
}
