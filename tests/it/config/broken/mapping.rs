//! Broken destinations and stored objects.

use super::{CSM, Case, USER_MAP};

pub const DESTINATIONS: &[Case] = &[
    (
        "to empty",
        "[job.acme.user_sync.to.User]\nidentifiers = [\"username\"]\nmap = { username = \"Username\", email = \"Email\" }",
        "to = {}",
    ),
    (
        "to missing",
        "[job.acme.user_sync.to.User]\nidentifiers = [\"username\"]\nmap = { username = \"Username\", email = \"Email\" }",
        "",
    ),
    ("unknown object", "to.User]", "to.Users]"),
    ("an object by its table", "to.User]", "to.user]"),
    (
        "unknown key",
        USER_MAP,
        "map = { username = \"Username\" }\ndervie = {}",
    ),
    ("map missing", USER_MAP, ""),
    ("identifiers missing", "identifiers = [\"username\"]\n", ""),
    (
        "identifiers empty",
        "identifiers = [\"username\"]",
        "identifiers = []",
    ),
    (
        "identifiers, a text",
        "identifiers = [\"username\"]",
        "identifiers = \"username\"",
    ),
    (
        "identifier not mapped",
        "identifiers = [\"username\"]",
        "identifiers = [\"usernam\", \"last_name\"]",
    ),
    (
        "identifier twice",
        "identifiers = [\"username\"]",
        "identifiers = [\"username\", \"username\"]",
    ),
    (
        "identifier of an avatar",
        "identifiers = [\"username\"]",
        "identifiers = [\"avatar.user_id\"]",
    ),
    (
        "person key of another object",
        "identifiers = [\"salesforce_account_id\"]",
        "identifiers = \"@person_key\"",
    ),
    (
        "avatar",
        USER_MAP,
        "map = { username = \"Username\" }\navatar = { user_id = \"Alias\" }",
    ),
    (
        "unknown column",
        USER_MAP,
        "map = { username = \"Username\", emial = \"Email\" }",
    ),
    (
        "unknown column, far from any",
        USER_MAP,
        "map = { username = \"Username\", shoe_size = \"Shoe__c\" }",
    ),
    (
        "a column of the daemon",
        USER_MAP,
        "map = { username = \"Username\", crm_state = \"State__c\" }",
    ),
    (
        "a placeholder",
        USER_MAP,
        "map = { username = \"Username\", \"external_id_{instance}\" = \"Id\" }",
    ),
    (
        "a gsid mapped",
        USER_MAP,
        "map = { username = \"Username\", manager = \"ManagerId\" }",
    ),
    (
        "a mapping of a number",
        USER_MAP,
        "map = { username = \"Username\", email = 5 }",
    ),
    (
        "a mapping removed",
        USER_MAP,
        "map = { username = \"Username\", email = false }",
    ),
    (
        "a mapping empty",
        USER_MAP,
        "map = { username = \"Username\", email = \"\" }",
    ),
    (
        "a mapping from nothing",
        USER_MAP,
        "map = { username = \"Username\", email = { default = \"x\" } }",
    ),
    (
        "a mapping from two",
        USER_MAP,
        "map = { username = \"Username\", email = { from = \"Email\", value = \"x\" } }",
    ),
    (
        "a constant with a default",
        USER_MAP,
        "map = { username = \"Username\", email = { value = \"x\", default = \"y\" } }",
    ),
    (
        "default and on_null",
        USER_MAP,
        "map = { username = \"Username\", email = { from = \"Email\", default = \"y\", on_null = \"keep\" } }",
    ),
    (
        "when, on_null",
        USER_MAP,
        "map = { username = \"Username\", email = { from = \"Email\", when = \"update\", on_null = \"null\" } }",
    ),
    (
        "values",
        USER_MAP,
        "map = { username = \"Username\", email = { from = \"Email\", values = {} }, locale = { from = \"L\", values = { a = [1], b = nan } } }",
    ),
    (
        "mapped and derived",
        "name = \"Name\" }",
        "name = \"Name\", csm = { value = \"0190a5b2-0000-7000-8000-000000000001\" } }",
    ),
    (
        "derive a text",
        CSM,
        "derive.name = { from = \"User\", match = { \"@id\" = \"OwnerId\" } }",
    ),
    (
        "derive from another object",
        CSM,
        "derive.csm = { from = \"Company\", match = { \"@id\" = \"OwnerId\" } }",
    ),
    (
        "derive from an unknown object",
        CSM,
        "derive.csm = { from = \"Usre\", match = { \"@id\" = \"OwnerId\" } }",
    ),
    (
        "derive in two ways",
        CSM,
        "derive.csm = { from = \"User\", sibling = \"User\" }",
    ),
    (
        "derive by an unknown column",
        CSM,
        "derive.csm = { from = \"User\", match = { usernam = \"Owner.Username\" } }",
    ),
    (
        "derive by no pair",
        CSM,
        "derive.csm = { from = \"User\", match = {} }",
    ),
    (
        "derive by seven pairs",
        CSM,
        "derive.csm = { from = \"User\", match = { \"@id\" = \"A\", name = \"B\", email = \"C\", username = \"D\", locale = \"E\", division = \"F\", phone = \"G\" } }",
    ),
    (
        "derive, no such policies",
        CSM,
        "derive.csm = { from = \"User\", match = { \"@id\" = \"A\" }, on_multiple = \"first\", on_none = \"nil\" }",
    ),
    (
        "derive, default missing",
        CSM,
        "derive.csm = { from = \"User\", match = { \"@id\" = \"A\" }, on_none = \"default\" }",
    ),
    (
        "derive, default is none",
        CSM,
        "derive.csm = { from = \"User\", match = { \"@id\" = \"A\" }, on_none = \"default\", default = \"005\" }",
    ),
    (
        "derive, default alone",
        CSM,
        "derive.csm = { from = \"User\", match = { \"@id\" = \"A\" }, default = \"0190a5b2-0000-7000-8000-000000000001\" }",
    ),
    (
        "sibling of itself",
        CSM,
        "derive.parent_company = { sibling = \"Company\" }",
    ),
];

pub const OBJECTS: &[Case] = &[
    (
        "table",
        "",
        "[object.Asset]\nlabel = \"Asset\"\nfields.a.type = \"string\"\n",
    ),
    (
        "table of the daemon",
        "",
        "[object.tributary_rows]\nlabel = \"Asset\"\nfields.a.type = \"string\"\n",
    ),
    (
        "label missing",
        "",
        "[object.asset.fields]\na.type = \"string\"\n",
    ),
    (
        "label twice",
        "",
        "[object.asset]\nlabel = \"Company\"\nfields.a.type = \"string\"\n",
    ),
    (
        "label of a standard object",
        "",
        "[object.company]\nlabel = \"Account\"\n",
    ),
    ("no columns", "", "[object.asset]\nlabel = \"Asset\"\n"),
    (
        "column",
        "",
        "[object.company.fields]\nYearStarted.type = \"number\"\n",
    ),
    (
        "column of every table",
        "",
        "[object.company.fields]\ngsid.type = \"string\"\n",
    ),
    (
        "type missing",
        "",
        "[object.company.fields]\nyear_started.label = \"Year\"\n",
    ),
    (
        "type",
        "",
        "[object.company.fields]\nyear_started.type = \"integer\"\n",
    ),
    (
        "type of a standard column",
        "",
        "[object.company.fields]\nname.type = \"number\"\n",
    ),
    (
        "references missing",
        "",
        "[object.company.fields]\npartner.type = \"gsid\"\n",
    ),
    (
        "references of a text",
        "",
        "[object.company.fields]\npartner = { type = \"string\", references = \"Company\" }\n",
    ),
    (
        "references unknown",
        "",
        "[object.company.fields]\npartner = { type = \"gsid\", references = \"Compny\" }\n",
    ),
    (
        "column label twice",
        "",
        "[object.company.fields]\nfirm = { type = \"string\", label = \"Name\" }\n",
    ),
];
