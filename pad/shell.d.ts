/** The build puts the text of a shell script where it is imported. */
declare module '*.sh' {
  const text: string;
  export = text;
}
