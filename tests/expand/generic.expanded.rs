#[automatically_derived]
impl<'a, I, T: ?Sized, L> analytics::groups::MixpanelGroup for Team<'a, I, T, L>
where
    I: Copy,
    T: analytics::groups::__private::Serialize,
    L: analytics::groups::List,
{
    const GROUP_KEY: &'static analytics::groups::__private::str = "team";
    const GROUP_HEAD: &'static analytics::groups::__private::str = "\"$group_key\":\"team\",\"$group_id\":";
    const PROPERTIES: &'static [analytics::groups::Property] = {
        type __Operation = analytics::groups::Operation;
        &analytics::groups::Property::all([
            ("title", "title", __Operation::Set, "", ",\"title\":", true),
            ("tags", "tags", __Operation::Union, "", ",\"tags\":", true),
            ("created", "created", __Operation::SetOnce, "", ",\"created\":", true),
            ("", "settings", __Operation::Set, "", ",\"\":", false),
        ])
    };
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
        type __Operation = analytics::groups::Operation;
        type __Walk<'__a, __V> = analytics::groups::__private::Walk<'__a, __V>;
        type __Values<'__a, __T> = analytics::groups::__private::Values<'__a, __T>;
        let __properties = <Self as analytics::groups::MixpanelGroup>::PROPERTIES;
        let __walk = &mut __Walk::new(__visitor, __properties);
        let __is_complete = match __operation {
            __Operation::Set => {
                __Values::new(&self.title, &__old.title).__property(__walk, 0)
                    && __Values::new(
                            &analytics::groups::__private::unless(
                                Settings::is_default(&self.settings),
                                &analytics::groups::__private::Field::<Self, 3>(self),
                            ),
                            &analytics::groups::__private::unless(
                                Settings::is_default(&__old.settings),
                                &analytics::groups::__private::Field::<Self, 3>(__old),
                            ),
                        )
                        .__flatten(__walk, 3)
            }
            __Operation::SetOnce => {
                __Values::new(
                        &analytics::groups::__private::Field::<Self, 2>(self),
                        &analytics::groups::__private::Field::<Self, 2>(__old),
                    )
                    .__property(__walk, 2)
            }
            __Operation::Union => {
                __Values::new(
                        &analytics::groups::__private::unless(
                            is_empty(&self.tags),
                            &self.tags,
                        ),
                        &analytics::groups::__private::unless(
                            is_empty(&__old.tags),
                            &__old.tags,
                        ),
                    )
                    .__list(__walk, 1)
            }
            _ => true,
        };
        __walk.end(__is_complete)
    }
}
#[automatically_derived]
#[doc(hidden)]
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
#[doc(hidden)]
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
