//! The nearest known name to a mistyped one.

/// Returns the candidate nearest to `name` by edit distance; `None` if every candidate differs in more than a third of its
/// letters, because then it is no typing mistake.
pub(super) fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let near = candidates.into_iter().map(|candidate| (distance(name, candidate), candidate));
    let (distance, candidate) = near.min_by_key(|(distance, _)| *distance)?;
    (distance * 3 <= candidate.chars().count().max(3)).then_some(candidate)
}

/// Returns the number of letters to insert, delete or replace, and of neighbours to exchange, to make `a` into `b`
/// (optimal string alignment).
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut before = Vec::new();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for line in 0..a.len() {
        let mut next = vec![line + 1];
        for column in 0..b.len() {
            let replaced = row[column] + usize::from(a[line] != b[column]);
            let mut fewest = replaced.min(row[column + 1] + 1).min(next[column] + 1);
            if line > 0 && column > 0 && a[line] == b[column - 1] && a[line - 1] == b[column] {
                fewest = fewest.min(before[column - 1] + 1);
            }
            next.push(fewest);
        }
        before = std::mem::replace(&mut row, next);
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_finds_typing_mistakes_and_no_other_words() {
        let keys = ["listen", "workers", "token"];
        for (typed, found) in [
            ("listn", Some("listen")),
            ("wrokers", Some("workers")),
            ("tokens", Some("token")),
            ("tkoen", Some("token")),
            ("cache", None),
        ] {
            assert_eq!(nearest(typed, keys), found, "{typed}");
        }
        assert_eq!(nearest("x", []), None);
        assert_eq!((distance("edeg", "edge"), distance("abcd", "badc")), (1, 2));
        assert_eq!((distance("kitten", "sitting"), distance("", "ab"), distance("ab", "")), (3, 2, 2));
    }
}
