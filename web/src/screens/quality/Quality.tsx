export function QualityScreen() { return null; }
