/** Finds what somebody means by a few letters. */

/** How well letters fit a text: higher is better, null when they are not in it in order. */
export function score(letters: string, text: string): number | null {
  const wanted = letters.toLowerCase().replaceAll(/\s+/g, "");
  const given = text.toLowerCase();
  if (wanted === "") return 0;
  const whole = given.indexOf(wanted);
  if (whole >= 0) return 1000 - whole - given.length / 100 + (whole === 0 || /[._\s-]/.test(given[whole - 1] ?? "") ? 200 : 0);
  let found = 0;
  let at = -1;
  for (const letter of wanted) {
    const next = given.indexOf(letter, at + 1);
    if (next < 0) return null;
    found += next === at + 1 ? 5 : /[._\s-]/.test(given[next - 1] ?? ".") ? 3 : 0;
    at = next;
  }
  return found - given.length / 100;
}

/** What fits, best first. */
export function best<T>(letters: string, items: readonly T[], text: (item: T) => string, limit: number): T[] {
  const scored = items.flatMap((item) => {
    const value = score(letters, text(item));
    return value === null ? [] : [{ item, value }];
  });
  if (letters.trim() !== "") scored.sort((one, other) => other.value - one.value);
  return scored.slice(0, limit).map(({ item }) => item);
}
