"""The form: raw fields are parsed here, and a frozen AvatarRequest leaves."""
