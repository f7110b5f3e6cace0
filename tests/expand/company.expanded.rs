#[automatically_derived]
impl ::mixpanel_groups::MixpanelGroup for Company {
    const GROUP_KEY: &'static ::mixpanel_groups::__private::str = "company";
    const PROPERTIES: &'static [::mixpanel_groups::Property] = &[
        ::mixpanel_groups::Property::new(
            "name",
            "name",
            ::mixpanel_groups::Operation::Set,
            "The name that people know it by.",
            ",\"name\":",
        ),
        ::mixpanel_groups::Property::new(
            "plan",
            "plan",
            ::mixpanel_groups::Operation::Set,
            "",
            ",\"plan\":",
        ),
        ::mixpanel_groups::Property::new(
                "industry",
                "industry",
                ::mixpanel_groups::Operation::Set,
                "",
                ",\"industry\":",
            )
            .unset_none(),
        ::mixpanel_groups::Property::new(
            "foundingYear",
            "founding_year",
            ::mixpanel_groups::Operation::SetOnce,
            "",
            ",\"foundingYear\":",
        ),
        ::mixpanel_groups::Property::new(
            "integrations",
            "integrations",
            ::mixpanel_groups::Operation::Union,
            "",
            ",\"integrations\":",
        ),
        ::mixpanel_groups::Property::new(
            "Seats \"Purchased\"",
            "seats",
            ::mixpanel_groups::Operation::Set,
            "",
            ",\"Seats \\\"Purchased\\\"\":",
        ),
    ];
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
        let __all = <Self as ::mixpanel_groups::MixpanelGroup>::PROPERTIES;
        match __operation {
            ::mixpanel_groups::Operation::Set => {
                <__V as ::mixpanel_groups::__private::Visitor>::property(
                    __visitor,
                    &__all[0],
                    &self.name,
                    &__old.name,
                )?;
                <__V as ::mixpanel_groups::__private::Visitor>::property(
                    __visitor,
                    &__all[1],
                    &self.plan,
                    &__old.plan,
                )?;
                <__V as ::mixpanel_groups::__private::Visitor>::property(
                    __visitor,
                    &__all[2],
                    &self.industry,
                    &__old.industry,
                )?;
                <__V as ::mixpanel_groups::__private::Visitor>::property(
                    __visitor,
                    &__all[5],
                    &self.seats,
                    &__old.seats,
                )?;
            }
            ::mixpanel_groups::Operation::SetOnce => {
                <__V as ::mixpanel_groups::__private::Visitor>::property(
                    __visitor,
                    &__all[3],
                    &self.founding_year,
                    &__old.founding_year,
                )?;
            }
            ::mixpanel_groups::Operation::Union => {
                <__V as ::mixpanel_groups::__private::Visitor>::list(
                    __visitor,
                    &__all[4],
                    &self.integrations,
                    &__old.integrations,
                )?;
            }
            _ => {}
        }
        ::mixpanel_groups::__private::Ok(())
    }
}
