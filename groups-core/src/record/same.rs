//! Values of the standard library that are compared as they are: much faster than by what serde makes of them.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::hash::{BuildHasher, Hash};
use std::rc::Rc;
use std::sync::Arc;

/// A value that is sent as the same JSON as one that it is the same as, and is never refused.
///
/// This crate implements it for types of the standard library only. Two values of a user's type may be equal though a field
/// differs that is sent.
pub trait Same {
    /// Returns whether the values certainly are the same. If it returns `false`, they still may be.
    fn is_same(&self, other: &Self) -> bool;
}

/// A value that is the key of a member of a JSON object.
pub trait Key: Same {}

macro_rules! equal {
    ($($type:ty)*) => {$(
        impl Same for $type {
            #[inline]
            fn is_same(&self, other: &Self) -> bool {
                self == other
            }
        }
    )*};
}

macro_rules! keys {
    ($($type:ty)*) => {$(
        impl Key for $type {}
    )*};
}

equal!(bool i8 i16 i32 i64 isize u8 u16 u32 u64 usize char str String);
keys!(i8 i16 i32 i64 isize u8 u16 u32 u64 usize char str String);

macro_rules! floats {
    ($($type:ty)*) => {$(
        /// Zeros of either sign are equal, and are written in two ways.
        impl Same for $type {
            #[inline]
            fn is_same(&self, other: &Self) -> bool {
                self.to_bits() == other.to_bits()
            }
        }
    )*};
}

floats!(f32 f64);

macro_rules! pointers {
    ($($type:ty)*) => {$(
        impl<T: Same + ?Sized> Same for $type {
            #[inline]
            fn is_same(&self, other: &Self) -> bool {
                (**self).is_same(&**other)
            }
        }

        impl<T: Key + ?Sized> Key for $type {}
    )*};
}

pointers!(&T Box<T> Rc<T> Arc<T>);

impl<T: Same + ToOwned + ?Sized> Same for Cow<'_, T> {
    #[inline]
    fn is_same(&self, other: &Self) -> bool {
        (**self).is_same(&**other)
    }
}

impl<T: Key + ToOwned + ?Sized> Key for Cow<'_, T> {}

impl<T: Same> Same for Option<T> {
    #[inline]
    fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Some(one), Some(other)) => one.is_same(other),
            (None, None) => true,
            _ => false,
        }
    }
}

impl<T: Same> Same for [T] {
    #[inline]
    fn is_same(&self, other: &Self) -> bool {
        self.len() == other.len() && are_same(self, other)
    }
}

impl<T: Same, const N: usize> Same for [T; N] {
    #[inline]
    fn is_same(&self, other: &Self) -> bool {
        self[..].is_same(&other[..])
    }
}

impl<T: Same> Same for Vec<T> {
    #[inline]
    fn is_same(&self, other: &Self) -> bool {
        self[..].is_same(&other[..])
    }
}

impl<T: Same> Same for VecDeque<T> {
    fn is_same(&self, other: &Self) -> bool {
        self.len() == other.len() && are_same(self, other)
    }
}

impl<T: Same> Same for BTreeSet<T> {
    fn is_same(&self, other: &Self) -> bool {
        self.len() == other.len() && are_same(self, other)
    }
}

impl<T: Same + Eq + Hash, S: BuildHasher> Same for HashSet<T, S> {
    fn is_same(&self, other: &Self) -> bool {
        self.len() == other.len() && self.iter().all(|item| other.contains(item))
    }
}

impl<K: Key, V: Same> Same for BTreeMap<K, V> {
    fn is_same(&self, other: &Self) -> bool {
        let mut members = self.iter().zip(other);
        self.len() == other.len()
            && members.all(|((key, value), (other_key, other))| {
                key.is_same(other_key) && value.is_same(other)
            })
    }
}

impl<K: Key + Eq + Hash, V: Same, S: BuildHasher> Same for HashMap<K, V, S> {
    fn is_same(&self, other: &Self) -> bool {
        let is_same =
            |(key, value): (&K, &V)| other.get(key).is_some_and(|other| value.is_same(other));
        self.len() == other.len() && self.iter().all(is_same)
    }
}

#[inline]
fn are_same<'a, T: Same + 'a>(
    one: impl IntoIterator<Item = &'a T>,
    other: impl IntoIterator<Item = &'a T>,
) -> bool {
    one.into_iter()
        .zip(other)
        .all(|(one, other)| one.is_same(other))
}

#[cfg(test)]
mod tests {
    use std::fmt::Debug;

    use proptest::prelude::*;
    use serde::Serialize;

    use super::*;

    /// Checks that what is the same is sent as the same JSON, and that this is seen of a clone.
    fn check<T: Same + Clone + Debug + Serialize>(one: &T, other: &T) -> Result<(), TestCaseError> {
        let json = |value| serde_json::to_value(value).unwrap();
        prop_assert!(one.is_same(&one.clone()));
        prop_assert!(!one.is_same(other) || json(one) == json(other));
        Ok(())
    }

    type Lists = (Vec<u8>, VecDeque<Option<bool>>, BTreeSet<char>, [f64; 2]);
    type Maps = (
        HashMap<String, f32>,
        BTreeMap<i8, Box<str>>,
        Option<Cow<'static, str>>,
    );

    fn small() -> impl Strategy<Value = u8> {
        0..2_u8
    }

    fn float() -> impl Strategy<Value = f32> {
        prop::sample::select(vec![0.0, -0.0, 1.5, f32::NAN])
    }

    fn text() -> impl Strategy<Value = String> {
        "[ab]{0,2}"
    }

    fn lists() -> impl Strategy<Value = Lists> {
        (
            prop::collection::vec(small(), 0..3),
            prop::collection::vec_deque(prop::option::of(any::<bool>()), 0..3),
            prop::collection::btree_set(prop::char::range('a', 'c'), 0..3),
            [float(), float()].prop_map(|floats| floats.map(f64::from)),
        )
    }

    fn maps() -> impl Strategy<Value = Maps> {
        (
            prop::collection::hash_map(text(), float(), 0..3),
            prop::collection::btree_map(-1..1_i8, text().prop_map(String::into_boxed_str), 0..3),
            prop::option::of(text().prop_map(Cow::Owned)),
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn the_same_lists_are_sent_as_the_same(one in lists(), other in lists()) {
            check(&one.0, &other.0)?;
            check(&one.1, &other.1)?;
            check(&one.2, &other.2)?;
            check(&one.3, &other.3)?;
        }

        #[test]
        fn the_same_maps_are_sent_as_the_same(one in maps(), other in maps()) {
            check(&one.0, &other.0)?;
            check(&one.1, &other.1)?;
            check(&one.2, &other.2)?;
        }
    }

    #[test]
    fn the_order_counts_where_it_is_sent() {
        assert!(!vec![1, 2].is_same(&vec![2, 1]));
        let numbers = |order: [u8; 3]| HashSet::from(order);
        assert!(numbers([1, 2, 3]).is_same(&numbers([3, 2, 1])));
        assert!(!numbers([1, 2, 3]).is_same(&numbers([3, 2, 4])));
        let names = |order: [u8; 3]| HashMap::from(order.map(|number| (number, number)));
        assert!(names([1, 2, 3]).is_same(&names([3, 2, 1])));
        assert!(!names([1, 2, 3]).is_same(&names([3, 2, 4])));
    }
}
