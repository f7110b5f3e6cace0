#[automatically_derived]
impl ::mixpanel_groups::MixpanelGroup for Company {
    const GROUP_KEY: &'static ::mixpanel_groups::__private::str = "company";
    const GROUP_HEAD: &'static ::mixpanel_groups::__private::str = "\"$group_key\":\"company\",\"$group_id\":";
    const PROPERTIES: &'static [::mixpanel_groups::Property] = {
        type __Operation = ::mixpanel_groups::Operation;
        &::mixpanel_groups::Property::all([
            (
                "name",
                "name",
                __Operation::Set,
                "The name that people know it by.",
                ",\"name\":",
                false,
            ),
            ("plan", "plan", __Operation::Set, "", ",\"plan\":", false),
            ("industry", "industry", __Operation::Set, "", ",\"industry\":", true),
            (
                "foundingYear",
                "founding_year",
                __Operation::SetOnce,
                "",
                ",\"foundingYear\":",
                false,
            ),
            (
                "integrations",
                "integrations",
                __Operation::Union,
                "",
                ",\"integrations\":",
                false,
            ),
            (
                "Seats \"Purchased\"",
                "seats",
                __Operation::Set,
                "",
                ",\"Seats \\\"Purchased\\\"\":",
                false,
            ),
        ])
    };
    fn group(&self) -> ::mixpanel_groups::Group<'_> {
        ::mixpanel_groups::Group::new(
            <Self as ::mixpanel_groups::MixpanelGroup>::GROUP_KEY,
            ::mixpanel_groups::GroupId::group_id(&self.id).with_prefix("company_"),
        )
    }
    fn visit_properties<__V: ::mixpanel_groups::__private::Visitor>(
        &self,
        __old: &Self,
        __operation: ::mixpanel_groups::Operation,
        __visitor: &mut __V,
    ) -> ::mixpanel_groups::__private::Result<
        (),
        ::mixpanel_groups::__private::EncodeError,
    > {
        type __Operation = ::mixpanel_groups::Operation;
        type __Walk<'__a, __V> = ::mixpanel_groups::__private::Walk<'__a, __V>;
        type __Values<'__a, __T> = ::mixpanel_groups::__private::Values<'__a, __T>;
        let __properties = <Self as ::mixpanel_groups::MixpanelGroup>::PROPERTIES;
        let __walk = &mut __Walk::new(__visitor, __properties);
        let __is_complete = match __operation {
            __Operation::Set => {
                __Values::new(&self.name, &__old.name).__property(__walk, 0)
                    && __Values::new(&self.plan, &__old.plan).__property(__walk, 1)
                    && __Values::new(&self.industry, &__old.industry)
                        .__property(__walk, 2)
                    && __Values::new(&self.seats, &__old.seats).__property(__walk, 5)
            }
            __Operation::SetOnce => {
                __Values::new(&self.founding_year, &__old.founding_year)
                    .__property(__walk, 3)
            }
            __Operation::Union => {
                __Values::new(&self.integrations, &__old.integrations).__list(__walk, 4)
            }
            _ => true,
        };
        __walk.end(__is_complete)
    }
}
