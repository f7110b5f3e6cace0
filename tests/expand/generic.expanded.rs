#[automatically_derived]
impl<'a, I, T: ?Sized, L> analytics::groups::MixpanelGroup for Team<'a, I, T, L>
where
    I: Copy,
    T: analytics::groups::__private::Serialize,
    L: analytics::groups::List,
{
    const GROUP_KEY: &'static analytics::groups::__private::str = "team";
    const PROPERTIES: &'static [analytics::groups::Property] = &[
        analytics::groups::Property::new(
                "title",
                "title",
                analytics::groups::Operation::Set,
                "",
                ",\"title\":",
            )
            .unset_none(),
        analytics::groups::Property::new(
                "tags",
                "tags",
                analytics::groups::Operation::Union,
                "",
                ",\"tags\":",
            )
            .unset_none(),
        analytics::groups::Property::new(
                "created",
                "created",
                analytics::groups::Operation::SetOnce,
                "",
                ",\"created\":",
            )
            .unset_none(),
        analytics::groups::Property::new(
            "",
            "settings",
            analytics::groups::Operation::Set,
            "",
            ",\"\":",
        ),
    ];
    fn group(&self) -> analytics::groups::Group<'_> {
        analytics::groups::Group::new(
                <Self as analytics::groups::MixpanelGroup>::GROUP_KEY,
                analytics::groups::__private::id(to_text(&self.id)),
            )
            .in_company(analytics::groups::GroupId::group_id(&self.company))
    }
    fn visit_properties<__V: analytics::groups::__private::Visitor>(
        &self,
        __old: &Self,
        __operation: analytics::groups::Operation,
        __visitor: &mut __V,
    ) -> analytics::groups::__private::Result<
        (),
        analytics::groups::__private::EncodeError,
    > {
        let __all = <Self as analytics::groups::MixpanelGroup>::PROPERTIES;
        match __operation {
            analytics::groups::Operation::Set => {
                <__V as analytics::groups::__private::Visitor>::property(
                    __visitor,
                    &__all[0],
                    &self.title,
                    &__old.title,
                )?;
                <__V as analytics::groups::__private::Visitor>::flatten(
                    __visitor,
                    &__all[3],
                    __all,
                    &analytics::groups::__private::unless(
                        Settings::is_default(&self.settings),
                        &analytics::groups::__private::Field::<Self, 3>(self),
                    ),
                    &analytics::groups::__private::unless(
                        Settings::is_default(&__old.settings),
                        &analytics::groups::__private::Field::<Self, 3>(__old),
                    ),
                )?;
            }
            analytics::groups::Operation::SetOnce => {
                <__V as analytics::groups::__private::Visitor>::property(
                    __visitor,
                    &__all[2],
                    &analytics::groups::__private::Field::<Self, 2>(self),
                    &analytics::groups::__private::Field::<Self, 2>(__old),
                )?;
            }
            analytics::groups::Operation::Union => {
                <__V as analytics::groups::__private::Visitor>::list(
                    __visitor,
                    &__all[1],
                    &analytics::groups::__private::unless(
                        is_empty(&self.tags),
                        &self.tags,
                    ),
                    &analytics::groups::__private::unless(
                        is_empty(&__old.tags),
                        &__old.tags,
                    ),
                )?;
            }
            _ => {}
        }
        analytics::groups::__private::Ok(())
    }
}
#[automatically_derived]
impl<'a, I, T: ?Sized, L> analytics::groups::__private::SerializeField<2>
for Team<'a, I, T, L>
where
    I: Copy,
    T: analytics::groups::__private::Serialize,
    L: analytics::groups::List,
{
    fn serialize_field<__S: analytics::groups::__private::Serializer>(
        &self,
        __serializer: __S,
    ) -> analytics::groups::__private::Result<__S::Ok, __S::Error> {
        as_text(&self.created, __serializer)
    }
}
#[automatically_derived]
impl<'a, I, T: ?Sized, L> analytics::groups::__private::SerializeField<3>
for Team<'a, I, T, L>
where
    I: Copy,
    T: analytics::groups::__private::Serialize,
    L: analytics::groups::List,
{
    fn serialize_field<__S: analytics::groups::__private::Serializer>(
        &self,
        __serializer: __S,
    ) -> analytics::groups::__private::Result<__S::Ok, __S::Error> {
        entries(&self.settings, __serializer)
    }
}
