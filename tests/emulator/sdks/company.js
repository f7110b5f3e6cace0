// An update of a company of Hierarchical Groups, with a number that JSON does not have, with the
// official Node SDK: company.js ENDPOINT
// Says what the callback is told, if that is an error.
"use strict";

const Mixpanel = require("mixpanel");

const { hostname, port } = new URL(process.argv[2]);
const { groups } = Mixpanel.init("TOKEN", { host: hostname, port, protocol: "http" });

groups.set("$company_id", "acme", { ratio: NaN }, { $company_id: "acme" }, (error) => {
  if (error) console.log(error.message);
});
