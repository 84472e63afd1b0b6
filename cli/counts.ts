// Numbers of things in messages.

/** `1 finding`, `2 findings` */
export function countOf(count: number, one: string, many = `${one}s`): string {
  return `${count} ${count === 1 ? one : many}`;
}
