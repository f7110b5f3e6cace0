use serde_core::Serialize;

use crate::group::{Group, Operation, Property};
use crate::json::EncodeError;
use crate::record::visit::Visitor;
use crate::record::{Changes, Update, Updates};

/// A struct that maps to a group profile; implemented by `#[derive(MixpanelGroup)]`.
///
/// The methods return [`Update`]s and send nothing: pass one, several or an iterator of them to
/// [`Client::send`](crate::Client::send). If the struct has a method with one of these names, call this trait's as
/// `MixpanelGroup::set(&company)`, and the struct's own, if it takes `&mut self`, as `Company::set(&mut company)`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not map to a Mixpanel group",
    label = "`MixpanelGroup` is not implemented for this type",
    note = "add `#[derive(mixpanel_groups::MixpanelGroup)]` to the struct, or use \
            `mixpanel_groups::Group::new(key, id)` for a group without a struct",
    note = "a snapshot takes the structs themselves, not their updates; for `Result`s of them call `try_sync`"
)]
pub trait MixpanelGroup {
    /// The group key, as in the project's settings: `"company"`.
    const GROUP_KEY: &'static str;

    /// What each update begins with: `"$group_key":"company","$group_id":`. For generated code.
    #[doc(hidden)]
    const GROUP_HEAD: &'static str;

    /// The properties that the struct maps to, in the order of its fields: a tracking plan.
    const PROPERTIES: &'static [Property];

    /// Returns the group: key, id and, with Hierarchical Groups, company id.
    fn group(&self) -> Group<'_>;

    /// Walks the properties of one operation, beside those of `old`. For generated code.
    ///
    /// # Errors
    /// The error of the visitor.
    #[doc(hidden)]
    fn visit_properties<V: Visitor>(
        &self,
        old: &Self,
        operation: Operation,
        visitor: &mut V,
    ) -> Result<(), EncodeError>;

    /// Returns the property that links an event to this group: see [`Group::link`]. With Hierarchical Groups, add
    /// `$company_id` too, or use [`Event`](crate::Event).
    fn link(&self) -> (String, serde_json::Value) {
        self.group().link()
    }

    /// Returns a `$set` of the properties without another operation. Each is created or overwritten; those that are
    /// `null` are left out.
    fn set(&self) -> Update<'_>
    where
        Self: Sized + ThreadSafe,
    {
        Update::derived(self, Operation::Set)
    }

    /// Returns a `$set_once` of the fields with `#[mixpanel(set_once)]`, which sets those that do not exist yet.
    fn set_once(&self) -> Update<'_>
    where
        Self: Sized + ThreadSafe,
    {
        Update::derived(self, Operation::SetOnce)
    }

    /// Returns a `$union` of the fields with `#[mixpanel(union)]`, which adds their items to the lists.
    fn union(&self) -> Update<'_>
    where
        Self: Sized + ThreadSafe,
    {
        Update::derived(self, Operation::Union)
    }

    /// Returns an `$unset`, which removes the properties of these names, as they are in Mixpanel (after `rename`):
    /// `acme.unset(["coupon"])`, in brackets also for one.
    fn unset<N: AsRef<str>>(&self, names: impl IntoIterator<Item = N>) -> Update<'static> {
        self.group().unset(names)
    }

    /// Returns a `$remove`, which removes one item, `value`, from the list property of this name in
    /// Mixpanel. Mixpanel cuts text items at 255 bytes, so it does not find a longer one.
    fn remove(&self, name: &str, value: impl Serialize) -> Update<'static> {
        self.group().remove(name, value)
    }

    /// Returns a `$delete`, which deletes the whole group profile.
    fn delete(&self) -> Update<'static> {
        self.group().delete()
    }

    /// Returns everything that the struct maps: `$set`, `$set_once` and `$union`, one update each, and `$unset` of the
    /// `null` fields with `#[mixpanel(unset_none)]`. Empty updates are left out.
    fn updates(&self) -> Updates<'_>
    where
        Self: Sized + ThreadSafe,
    {
        Updates::of(self)
    }

    /// Returns the updates that turn a profile in sync with `old` into one in sync with `self`: at most one of each
    /// operation, except `$remove`.
    ///
    /// One `$remove` takes one item of each list, so a list that shrinks from 9,000 items to 10 of them takes 8,990. A
    /// list is set as a whole where `$remove` would not find an item, or would take another, because Mixpanel cuts items
    /// at 255 bytes; an empty list is unset.
    ///
    /// If `old` is another group, or the versions differ and a value cannot be serialized, the only
    /// update is one that cannot be sent: its `to_json` is the error, and `Client::send` reports it as rejected.
    fn changes_since(&self, old: &Self) -> Changes<'static>
    where
        Self: Sized,
    {
        Changes::between(self, old)
    }
}

/// A reference to a struct is the same group: [`Snapshot::sync`](crate::Snapshot::sync) takes either.
impl<T: MixpanelGroup> MixpanelGroup for &T {
    const GROUP_KEY: &'static str = T::GROUP_KEY;
    const GROUP_HEAD: &'static str = T::GROUP_HEAD;
    const PROPERTIES: &'static [Property] = T::PROPERTIES;

    fn group(&self) -> Group<'_> {
        (**self).group()
    }

    fn visit_properties<V: Visitor>(
        &self,
        old: &Self,
        operation: Operation,
        visitor: &mut V,
    ) -> Result<(), EncodeError> {
        (**self).visit_properties(old, operation, visitor)
    }
}

/// A struct that several threads can read at once, so that an update that borrows it can be sent to another thread.
/// Implemented for every type that is [`Sync`], which is the bound to write in generic code.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be shared between threads, which an update that borrows it could be",
    label = "not `Sync`: a struct with a field such as an `Rc`, a `Cell` or a `RefCell`, or a type parameter without that bound",
    note = "use `Arc` (with the feature `rc` of serde) or `Mutex` in the struct, or make the update from values: \
            `company.group().set(properties)`, with any map or struct that serializes",
    note = "in a function for any group, write the bound `T: MixpanelGroup + Sync`"
)]
pub trait ThreadSafe: Sync {}

#[diagnostic::do_not_recommend]
impl<T: Sync + ?Sized> ThreadSafe for T {}
