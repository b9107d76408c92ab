// The page's strings, in the language that the server has chosen for it: words.LANGUAGE.json.
const language = document.documentElement.lang;
const strings = await (await fetch(`/static/words.${language}.json`)).json();
const plurals = new Intl.PluralRules(language);

const fill = (text, values) => text.replace(/\{(\w+)\}/g, (_, name) => values[name]);

// A string, with {names} replaced by values.
export function t(key, values = {}) {
  if (!(key in strings)) throw new Error(`no string "${key}"`);
  return fill(strings[key], values);
}

// A string that depends on a number, {n}: `key.one`, `key.other` and so on.
export function tn(key, n, values = {}) {
  const form = `${key}.${plurals.select(n)}`;
  return t(form in strings ? form : `${key}.other`, { n: n.toLocaleString(language), ...values });
}

export const has = (key) => key in strings;
export const number = (value, options) => value.toLocaleString(language, options);
export const percent = (share) => number(share, { style: "percent" });
