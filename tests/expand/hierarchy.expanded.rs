#[automatically_derived]
impl ::mixpanel_groups::MixpanelGroup for Company {
    const GROUP_KEY: &'static ::mixpanel_groups::__private::str = "$company_id";
    const PROPERTIES: &'static [::mixpanel_groups::Property] = &::mixpanel_groups::Property::all([]);
    fn group(&self) -> ::mixpanel_groups::Group<'_> {
        ::mixpanel_groups::Group::new(
                <Self as ::mixpanel_groups::MixpanelGroup>::GROUP_KEY,
                ::mixpanel_groups::GroupId::group_id(&self.id),
            )
            .in_company(::mixpanel_groups::GroupId::group_id(&self.id))
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
        type __Walk<'__a, __V> = ::mixpanel_groups::__private::Walk<'__a, __V>;
        let __properties = <Self as ::mixpanel_groups::MixpanelGroup>::PROPERTIES;
        let __walk = &mut __Walk::new(__visitor, __properties);
        let __is_complete = match __operation {
            _ => true,
        };
        __walk.end(__is_complete)
    }
}
