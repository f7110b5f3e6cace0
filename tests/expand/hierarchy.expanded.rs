#[automatically_derived]
impl ::mixpanel_groups::MixpanelGroup for Company {
    const GROUP_KEY: &'static ::mixpanel_groups::__private::str = "$company_id";
    const PROPERTIES: &'static [::mixpanel_groups::Property] = &[];
    fn group(&self) -> ::mixpanel_groups::Group<'_> {
        ::mixpanel_groups::Group::new(
                <Self as ::mixpanel_groups::MixpanelGroup>::GROUP_KEY,
                ::mixpanel_groups::GroupId::group_id(&self.id),
            )
            .in_company(::mixpanel_groups::GroupId::group_id(&self.id))
    }
    fn visit_properties<__V: ::mixpanel_groups::__private::Visitor>(
        &self,
        _: &Self,
        _: ::mixpanel_groups::Operation,
        _: &mut __V,
    ) -> ::mixpanel_groups::__private::Result<
        (),
        ::mixpanel_groups::__private::EncodeError,
    > {
        ::mixpanel_groups::__private::Ok(())
    }
}
