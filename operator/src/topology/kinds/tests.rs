//! The order in which objects of different kinds are declared and deleted.
use super::*;

#[test]
fn objects_are_deleted_in_the_opposite_order_of_their_declaration() {
    let mut ranks = RANKS.to_vec();
    ranks.sort_unstable();
    let declared: Vec<_> = ranks.iter().map(|rank| phase(*rank, false)).collect();
    let mut deleted: Vec<_> = ranks.iter().map(|rank| phase(*rank, true)).collect();
    assert_eq!(declared, ranks);
    assert!(deleted.is_sorted_by(|first, next| first >= next), "{deleted:?}");
    deleted.reverse();
    assert_eq!(
        (deleted.first(), deleted.last()),
        (ranks.first(), ranks.last()),
        "deletions take no phases of their own"
    );
}
